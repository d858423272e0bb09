//! The features that CPUID announces, one table a model (SDM Vol. 2A, "CPUID").
//!
//! All models announce the features of a Pentium 4, up to SSE2. `x86-64` has the features of 64-bit mode besides (the System V
//! ABI's x86-64 baseline, CMPXCHG16B, and LAHF and SAHF in 64-bit mode), `x86-64-v2` also what that ABI's level x86-64-v2 adds
//! ([`Level::V2`]). Otherwise they differ in family and model only, and this decides which speculative-execution mitigations Linux
//! applies (arch/x86/kernel/cpu/common.c, `cpu_vuln_whitelist`):
//!
//! * `bonnell` (default), the in-order Atom of 2008: Linux knows that it does not speculate and applies no mitigation, so
//!   no page-table isolation, no retpolines and no buffer clearing on the way in and out of the kernel. Guest code runs on
//!   the host's real, speculating core: a program inside the guest may therefore read the memory of its own guest's kernel
//!   or of other programs of the same guest through the known side channels. Choose it when a guest is one trust domain.
//! * `x86-64` and `x86-64-v2`, Atoms of the same family with 64-bit mode: as `bonnell`.
//! * `pentium4`: Linux takes it for a speculating core and applies what the guest kernel has for it.
//!
//! Left out, with the reason:
//! * APIC, MTRR, PAT, ACPI: there is no such device or cache to control. (MCE and MCA are there, with no bank of errors.)
//! * VME: virtual-8086 mode works without it; nothing that runs today needs it.
//! * DS, HT, TM, PBE: not part of the machine.
//! * MONITOR: MWAIT would wait for stores of other processors, of which there are none. Linux idles by HLT.
//! * RDTSCP, FSGSBASE, PCID, PCLMULQDQ, AES: not part of x86-64-v2.
//! * XSAVE, AVX, BMI, MOVBE and others of x86-64-v3: their state is not part of [`super::fpu::FxState`].

use super::control::{EFER_LME, EFER_NXE, EFER_SCE};
use mmu::PagingModel;
use serde::{Deserialize, Serialize};

/// A processor model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CpuModel {
    /// In-order Atom: family 6, model 0x1c.
    #[default]
    Bonnell,
    /// Family 15, model 2.
    Pentium4,
    /// In-order Atom with 64-bit mode: family 6, model 0x1c.
    X86_64,
    /// In-order Atom with 64-bit mode and the instructions of x86-64-v2: family 6, model 0x1c.
    X86_64V2,
}

/// A set of instructions, as the System V ABI levels them (AMD64 Architecture Processor Supplement, "Micro-Architecture Levels").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// The instructions that all models have.
    #[default]
    Baseline,
    /// The instructions of x86-64-v2 besides: SSE3, SSSE3, SSE4.1, SSE4.2 and POPCNT. Each executes on the host's processor, which
    /// must have them.
    V2,
}

impl Level {
    /// The first extension of the level that the host's processor lacks.
    pub fn missing_on_host(self) -> Option<&'static str> {
        if self == Self::Baseline {
            return None;
        }
        let extensions = [
            ("SSE3", is_x86_feature_detected!("sse3")),
            ("SSSE3", is_x86_feature_detected!("ssse3")),
            ("SSE4.1", is_x86_feature_detected!("sse4.1")),
            ("SSE4.2", is_x86_feature_detected!("sse4.2")),
            ("POPCNT", is_x86_feature_detected!("popcnt")),
        ];
        let mut missing = extensions.into_iter().filter(|(_, present)| !present);
        missing.next().map(|(name, _)| name)
    }
}

/// The four registers CPUID returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Highest basic leaf.
const MAX_BASIC: u32 = 2;
/// First hypervisor leaf.
const HYPERVISOR: u32 = 0x4000_0000;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;

/// Bits of leaf 1 EDX, as SDM Vol. 2A, Table 3-11 "More on Feature Information Returned in the EDX Register" names them.
mod feature {
    pub const FPU: u32 = 1 << 0;
    pub const DE: u32 = 1 << 2;
    pub const PSE: u32 = 1 << 3;
    pub const TSC: u32 = 1 << 4;
    pub const MSR: u32 = 1 << 5;
    pub const PAE: u32 = 1 << 6;
    pub const MCE: u32 = 1 << 7;
    pub const CX8: u32 = 1 << 8;
    pub const SEP: u32 = 1 << 11;
    pub const PGE: u32 = 1 << 13;
    pub const MCA: u32 = 1 << 14;
    pub const CMOV: u32 = 1 << 15;
    pub const PSE36: u32 = 1 << 17;
    pub const CLFSH: u32 = 1 << 19;
    pub const MMX: u32 = 1 << 23;
    pub const FXSR: u32 = 1 << 24;
    pub const SSE: u32 = 1 << 25;
    pub const SSE2: u32 = 1 << 26;
}

/// Leaf 1 EDX.
const FEATURES_EDX: u32 = feature::FPU
    | feature::DE
    | feature::PSE
    | feature::TSC
    | feature::MSR
    | feature::PAE
    | feature::MCE
    | feature::CX8
    | feature::SEP
    | feature::PGE
    | feature::MCA
    | feature::CMOV
    | feature::PSE36
    | feature::CLFSH
    | feature::MMX
    | feature::FXSR
    | feature::SSE
    | feature::SSE2;
/// Leaf 1 ECX: running under a hypervisor.
const FEATURES_ECX: u32 = 1 << 31;
/// Leaf 1 EBX: CLFLUSH line size of 64 bytes, in units of 8.
const CLFLUSH_LINE: u32 = 8 << 8;
/// Leaf 1 ECX: the extensions of [`Level::V2`].
const V2: u32 = SSE3 | SSSE3 | SSE4_1 | SSE4_2 | POPCNT;
/// Leaf 1 ECX: SSE3.
const SSE3: u32 = 1 << 0;
/// Leaf 1 ECX: SSSE3.
const SSSE3: u32 = 1 << 9;
/// Leaf 1 ECX: SSE4.1.
const SSE4_1: u32 = 1 << 19;
/// Leaf 1 ECX: SSE4.2, CRC32 included.
const SSE4_2: u32 = 1 << 20;
/// Leaf 1 ECX: POPCNT.
const POPCNT: u32 = 1 << 23;
/// Leaf 1 ECX: CMPXCHG16B.
const CX16: u32 = 1 << 13;
/// Leaf 0x80000001 EDX: execute-disable bit.
const NX: u32 = 1 << 20;
/// Leaf 0x80000001 EDX: SYSCALL and SYSRET, which are announced in 64-bit mode only.
const SYSCALL: u32 = 1 << 11;
/// Leaf 0x80000001 EDX: 64-bit mode.
const LM: u32 = 1 << 29;
/// Leaf 0x80000001 ECX: LAHF and SAHF in 64-bit mode.
const LAHF64: u32 = 1 << 0;
/// Leaf 0x80000007 EDX: invariant TSC (it is the host's).
const INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 0x80000001 EDX: 1-GByte pages.
const GIB_PAGES: u32 = 1 << 26;

const BRAND: &[u8; 48] = b"replex virtual IA-32 processor\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

impl CpuModel {
    /// Every model.
    pub const ALL: [Self; 4] = [Self::Bonnell, Self::Pentium4, Self::X86_64, Self::X86_64V2];

    /// The name by which users choose the model.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bonnell => "bonnell",
            Self::Pentium4 => "pentium4",
            Self::X86_64 => "x86-64",
            Self::X86_64V2 => "x86-64-v2",
        }
    }

    /// The model called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name() == name)
    }

    /// Family, model and stepping as in EAX of leaf 1, and in EDX after RESET.
    pub fn signature(self) -> u32 {
        match self {
            Self::Bonnell | Self::X86_64 | Self::X86_64V2 => 0x0001_06ca,
            Self::Pentium4 => 0x0000_0f29,
        }
    }

    /// Whether the model has IA-32e mode.
    pub fn has_long_mode(self) -> bool {
        matches!(self, Self::X86_64 | Self::X86_64V2)
    }

    /// The instructions that the model has.
    pub fn level(self) -> Level {
        match self {
            Self::Bonnell | Self::Pentium4 | Self::X86_64 => Level::Baseline,
            Self::X86_64V2 => Level::V2,
        }
    }

    /// The number of bits of physical addresses.
    pub fn physical_bits(self) -> u32 {
        self.paging_model().max_phys_addr
    }

    /// The properties of paging that the model announces.
    pub fn paging_model(self) -> PagingModel {
        match self.has_long_mode() {
            true => PagingModel::X86_64,
            false => PagingModel::IA32,
        }
    }

    /// The number of bits of linear addresses.
    fn linear_bits(self) -> u32 {
        self.paging_model().linear_width.bits()
    }

    /// The bits of IA32_EFER that software can set.
    pub fn writable_efer(self) -> u64 {
        match self.has_long_mode() {
            true => EFER_NXE | EFER_LME | EFER_SCE,
            false => EFER_NXE,
        }
    }

    /// The registers that CPUID returns for leaf `leaf`, in 64-bit mode if `code64`; a leaf above the highest returns the highest
    /// basic one.
    pub fn leaf(self, leaf: u32, code64: bool) -> Leaf {
        let long = |bits| if self.has_long_mode() { bits } else { 0 };
        let extensions = match self.level() {
            Level::Baseline => 0,
            Level::V2 => V2,
        };
        match leaf {
            0 => vendor_leaf(MAX_BASIC, b"GenuineIntel"),
            1 => Leaf {
                eax: self.signature(),
                ebx: CLFLUSH_LINE,
                ecx: FEATURES_ECX | long(CX16) | extensions,
                edx: FEATURES_EDX,
            },
            // TLB and cache descriptors: 64-entry TLBs, 8 KiB L1 data, 12 K-uop trace cache, 256 KiB L2.
            2 => Leaf {
                eax: 0x665b_5001,
                ebx: 0,
                ecx: 0,
                edx: 0x007a_7000,
            },
            HYPERVISOR => signature_leaf(HYPERVISOR, b"replexreplex"),
            0x8000_0000 => Leaf {
                eax: MAX_EXTENDED,
                ..Leaf::default()
            },
            0x8000_0001 => Leaf {
                ecx: long(LAHF64),
                edx: NX | long(LM | GIB_PAGES) | if code64 { SYSCALL } else { 0 },
                ..Leaf::default()
            },
            0x8000_0002..=0x8000_0004 => brand_leaf((leaf - 0x8000_0002) as usize),
            0x8000_0005 | 0x8000_0006 => Leaf::default(),
            0x8000_0007 => Leaf {
                edx: INVARIANT_TSC,
                ..Leaf::default()
            },
            MAX_EXTENDED => Leaf {
                eax: self.linear_bits() << 8 | self.physical_bits(),
                ..Leaf::default()
            },
            _ => self.leaf(MAX_BASIC, code64),
        }
    }
}

fn dword(text: &[u8], index: usize) -> u32 {
    text[index * 4..][..4]
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// Leaf 0 spells the vendor in EBX, EDX, ECX.
fn vendor_leaf(max: u32, vendor: &[u8; 12]) -> Leaf {
    Leaf {
        eax: max,
        ebx: dword(vendor, 0),
        ecx: dword(vendor, 2),
        edx: dword(vendor, 1),
    }
}

/// Hypervisor leaves spell the signature in EBX, ECX, EDX.
fn signature_leaf(max: u32, text: &[u8; 12]) -> Leaf {
    Leaf {
        eax: max,
        ebx: dword(text, 0),
        ecx: dword(text, 1),
        edx: dword(text, 2),
    }
}

fn brand_leaf(part: usize) -> Leaf {
    let text = &BRAND[part * 16..][..16];
    Leaf {
        eax: dword(text, 0),
        ebx: dword(text, 1),
        ecx: dword(text, 2),
        edx: dword(text, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for model in CpuModel::ALL {
            assert_eq!(CpuModel::from_name(model.name()), Some(model));
        }
        assert_eq!(CpuModel::from_name("z80"), None);
    }

    #[test]
    fn leaf_zero_spells_the_vendor() {
        let leaf = CpuModel::default().leaf(0, false);
        assert_eq!(
            (leaf.ebx, leaf.edx, leaf.ecx),
            (0x756e_6547, 0x4965_6e69, 0x6c65_746e)
        );
    }

    #[test]
    fn only_the_64_bit_model_has_the_features_of_long_mode() {
        for model in CpuModel::ALL {
            let features = model.leaf(0x8000_0001, false);
            assert_eq!(features.edx & LM != 0, model.has_long_mode());
            assert_eq!(features.edx & SYSCALL, 0, "not outside of 64-bit mode");
        }
        let model = CpuModel::X86_64;
        assert_ne!(model.leaf(0x8000_0001, true).edx & SYSCALL, 0);
        assert_eq!(model.leaf(0x8000_0008, true).eax, 0x3028);
        assert_ne!(model.leaf(1, true).ecx & CX16, 0);
    }

    #[test]
    fn x86_64_v2_announces_its_extensions_beside_those_of_x86_64() {
        let leaves = |leaf| {
            let of = |model: CpuModel| model.leaf(leaf, true);
            (of(CpuModel::X86_64), of(CpuModel::X86_64V2))
        };
        let (baseline, v2) = leaves(1);
        assert_eq!(v2.ecx ^ baseline.ecx, 0x0098_0201);
        assert_eq!(Leaf { ecx: 0, ..v2 }, Leaf { ecx: 0, ..baseline });
        for leaf in (0..=2).chain(0x8000_0000..=MAX_EXTENDED) {
            let (baseline, v2) = leaves(leaf);
            assert_eq!(v2 == baseline, leaf != 1, "leaf {leaf:#x}");
        }
        assert_eq!(Level::Baseline.missing_on_host(), None);
    }

    #[test]
    fn leaves_beyond_the_last_return_the_last_basic_one() {
        let model = CpuModel::default();
        assert_eq!(model.leaf(0x1234, false), model.leaf(2, false));
        assert_eq!(model.leaf(0x9000_0000, false), model.leaf(2, false));
    }
}
