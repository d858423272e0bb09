//! [`Scalar`]: the integers that a guest access moves, u8 to u128.

use vm_memory::ByteValued;

mod sealed {
    pub trait Sealed {}
}

/// An integer of 1, 2, 4, 8 or 16 bytes, little-endian in guest memory. It is implemented only here.
pub trait Scalar: ByteValued + sealed::Sealed {}

macro_rules! scalar {
    ($($int:ty),*) => {
        $(
            impl sealed::Sealed for $int {}
            impl Scalar for $int {}
        )*
    };
}

scalar!(u8, u16, u32, u64, u128);

#[cfg(not(target_endian = "little"))]
compile_error!(
    "guest memory is accessed in host byte order, which must be the guest's: little-endian"
);
