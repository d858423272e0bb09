# Ticks that 64-bit code counts.

        WIDE = 1
        .include "ticks.inc"
