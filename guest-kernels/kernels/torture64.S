# Paging torture in 64-bit code, in 4-level paging.

        WIDE = 1
        .include "torture.inc"
