//! The IA-32 processor: state, decoding, the exact one-instruction emulator.
