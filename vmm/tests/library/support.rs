//! Support for the tests of the library: tiny guests, and a console that replays what was typed.

use std::{collections::VecDeque, io, os::fd::BorrowedFd, time::Duration};

use vmm::{
    Console, Control, Engine, GuestPhys, LinearAddr, StopReason, VcpuConfig, Vm, VmConfig,
    console::{Channel, Input},
    loader::{BootSource, Kernel},
};

/// The time to wait for what must come: a bound on hanging, not on speed.
pub const PATIENCE: Duration = Duration::from_secs(600);
pub const ENGINES: [Engine; 2] = [Engine::Emulator, Engine::Translator];
/// The address at which guests are entered.
pub const START: u32 = 0x10_0000;
/// The address of the data that guests have beside their code.
pub const DATA: u32 = 0x20_0000;

/// A guest that counts in EAX and in the doubleword at [`DATA`], for ever.
#[rustfmt::skip]
pub const COUNT: &[u8] = &[
    0xff, 0x05, 0x00, 0x00, 0x20, 0x00, // again: inc dword [0x200000]
    0x40,                               // inc eax
    0xeb, 0xf7,                         // jmp again
];

/// A guest that halts with interrupts enabled, for ever.
#[rustfmt::skip]
pub const HALT: &[u8] = &[
    0xfb,       // sti
    0xf4,       // again: hlt
    0xeb, 0xfd, // jmp again
];

/// A guest that loops until an immediate of its own, at `START + 1`, changes, and ends with that as status.
#[rustfmt::skip]
pub const PATCHED: &[u8] = &[
    0xb0, 0x01, // again: mov al, 1
    0x3c, 0x01, // cmp al, 1
    0x74, 0xfa, // je again
    0xe6, 0xf4, // out 0xf4, al
];

/// A machine with `code`.
pub fn machine(engine: Engine, code: &[u8]) -> Vm {
    let vcpu = VcpuConfig {
        engine,
        ..VcpuConfig::default()
    };
    machine_with(vcpu, code)
}

/// A machine with `code` and the processor that `vcpu` describes.
pub fn machine_with(vcpu: VcpuConfig, code: &[u8]) -> Vm {
    let kernel = Kernel::flat(code.to_vec());
    let config = VmConfig {
        memory: 16 << 20,
        vcpu,
        ..VmConfig::default()
    };
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    Vm::boot(&config, &source).unwrap()
}

/// Fails unless a machine that runs [`COUNT`] is in a state that the guest can be in. Returns what it has counted.
pub fn assert_counting(vm: &Vm) -> u32 {
    let cpu = &vm.vcpu().cpu;
    let mut count = [0; 4];
    vm.read_memory(LinearAddr::from(DATA), &mut count).unwrap();
    let count = u32::from_le_bytes(count);
    let between = u32::from(cpu.eip == u64::from(START) + 6);
    let known = [0, 6, 7].map(|offset| u64::from(START + offset));
    assert!(known.contains(&cpu.eip), "EIP {:08x}", cpu.eip);
    assert_eq!(cpu.regs.get(0).wrapping_add(between), count);
    count
}

/// Reads by guest-physical address.
pub fn physical<const N: usize>(vm: &Vm, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    vm.read_physical(GuestPhys::new(address), &mut bytes)
        .unwrap();
    bytes
}

/// A console that types a text, and keeps what is shown.
#[derive(Default)]
pub struct Typed {
    pub input: VecDeque<Input>,
    pub shown: Vec<(Channel, Vec<u8>)>,
}

impl Typed {
    pub fn new(input: impl IntoIterator<Item = Input>) -> Self {
        Self {
            input: input.into_iter().collect(),
            shown: Vec::new(),
        }
    }
}

impl Console for Typed {
    fn input(&mut self, room: usize) -> io::Result<Input> {
        match self.input.front() {
            Some(Input::Bytes(bytes)) if bytes.len() > room => Ok(Input::Bytes(Vec::new())),
            _ => Ok(self.input.pop_front().unwrap_or(Input::Bytes(Vec::new()))),
        }
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        self.shown.push((channel, bytes.to_vec()));
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A console that pauses the machine before each slice, so that it takes effect behind it.
struct OneSlice(Control);

impl Console for OneSlice {
    fn input(&mut self, _: usize) -> io::Result<Input> {
        self.0.pause();
        Ok(Input::Bytes(Vec::new()))
    }

    fn output(&mut self, _: Channel, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Runs a guest, which does not end, for one slice.
pub fn run_slice(vm: &mut Vm) {
    let stop = try_slice(vm);
    assert!(matches!(stop, StopReason::Paused), "{stop}");
}

/// Runs a guest for one slice, unless it ends before.
pub fn try_slice(vm: &mut Vm) -> StopReason {
    vm.run(&mut OneSlice(vm.control()))
}
