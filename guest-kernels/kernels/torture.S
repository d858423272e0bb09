# Paging torture in 32-bit code, in 2-level and PAE paging.

        WIDE = 0
        .include "torture.inc"
