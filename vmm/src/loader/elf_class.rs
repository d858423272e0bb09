//! [`Class`]: where the fields of an ELF file lie, in its two classes (System V ABI, "Object Files": ELF Header, Program Header).
//!
//! ```text
//!            e_entry e_phoff e_phentsize e_phnum │ p_type p_offset p_vaddr p_paddr p_filesz p_memsz
//!  32 bits        24      28          42      44 │      0        4       8      12       16      20   of 32
//!  64 bits        24      32          54      56 │      0        8      16      24       32      40   of 56
//! ```

/// One of the classes. Offsets and lengths are in bytes.
pub(super) struct Class {
    /// `EI_CLASS`.
    pub number: u8,
    /// Length of a program header.
    pub phdr_len: usize,
    /// The last address there is.
    pub last_address: u64,
    ehdr_len: usize,
    e_phoff: usize,
    e_phentsize: usize,
    e_phnum: usize,
    p_offset: usize,
    p_vaddr: usize,
    p_paddr: usize,
    p_filesz: usize,
    p_memsz: usize,
}

/// Fields of the ELF header.
pub(super) struct Header {
    /// `e_entry`.
    pub entry: u64,
    /// `e_phoff`.
    pub phoff: u64,
    /// `e_phentsize`.
    pub phentsize: u16,
    /// `e_phnum`.
    pub phnum: u16,
}

/// Fields of a program header.
pub(super) struct ProgramHeader {
    /// `p_type`.
    pub kind: u32,
    /// `p_offset`.
    pub offset: u64,
    /// `p_vaddr`.
    pub vaddr: u64,
    /// `p_paddr`.
    pub paddr: u64,
    /// `p_filesz`.
    pub filesz: u64,
    /// `p_memsz`.
    pub memsz: u64,
}

const E_ENTRY: usize = 24;
const P_TYPE: usize = 0;

impl Class {
    /// The class of 32-bit files.
    pub const ELF32: Self = Self {
        number: 1,
        phdr_len: 32,
        last_address: u32::MAX as u64,
        ehdr_len: 52,
        e_phoff: 28,
        e_phentsize: 42,
        e_phnum: 44,
        p_offset: 4,
        p_vaddr: 8,
        p_paddr: 12,
        p_filesz: 16,
        p_memsz: 20,
    };
    /// The class of 64-bit files.
    pub const ELF64: Self = Self {
        number: 2,
        phdr_len: 56,
        last_address: u64::MAX,
        ehdr_len: 64,
        e_phoff: 32,
        e_phentsize: 54,
        e_phnum: 56,
        p_offset: 8,
        p_vaddr: 16,
        p_paddr: 24,
        p_filesz: 32,
        p_memsz: 40,
    };

    /// Reads the ELF header, unless `file` is shorter.
    pub fn header(&self, file: &[u8]) -> Option<Header> {
        let header = file.get(..self.ehdr_len)?;
        Some(Header {
            entry: self.word(header, E_ENTRY),
            phoff: self.word(header, self.e_phoff),
            phentsize: half(header, self.e_phentsize),
            phnum: half(header, self.e_phnum),
        })
    }

    /// Reads the program header table, unless it reaches beyond `file`.
    pub fn program_headers(&self, file: &[u8], header: &Header) -> Option<Vec<ProgramHeader>> {
        let start = usize::try_from(header.phoff).ok()?;
        let end = start.checked_add(usize::from(header.phnum) * self.phdr_len)?;
        let headers = file.get(start..end)?.chunks_exact(self.phdr_len);
        Some(headers.map(|header| self.program_header(header)).collect())
    }

    fn program_header(&self, header: &[u8]) -> ProgramHeader {
        ProgramHeader {
            kind: Self::ELF32.word(header, P_TYPE) as u32,
            offset: self.word(header, self.p_offset),
            vaddr: self.word(header, self.p_vaddr),
            paddr: self.word(header, self.p_paddr),
            filesz: self.word(header, self.p_filesz),
            memsz: self.word(header, self.p_memsz),
        }
    }

    /// Reads an address, offset or size at a constant offset inside a header.
    fn word(&self, header: &[u8], at: usize) -> u64 {
        let mut bytes = [0; 8];
        let len = 4 * usize::from(self.number);
        bytes[..len].copy_from_slice(&header[at..at + len]);
        u64::from_le_bytes(bytes)
    }
}

/// Reads a field of 16 bits at a constant offset inside a header.
fn half(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}
