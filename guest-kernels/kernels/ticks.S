# Ticks that 32-bit code counts.

        WIDE = 0
        .include "ticks.inc"
