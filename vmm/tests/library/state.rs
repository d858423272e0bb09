//! Saved and restored machines, also by states that somebody has tampered with.

use std::{fs::File, os::unix::fs::FileExt as _};

use proptest::{collection::vec, prelude::*, sample::Index};
use vmm::{
    Action, Decision, Device, DeviceContext, DeviceStateError, Engine, GuestPhys, IoAccess, Irq,
    Policy, Resources, RestoreError, StopReason, VcpuConfig, Vm, VmConfig, VmState, mmu::Memory,
};

use crate::support::{DATA, ENGINES, HALT, START, Typed, machine, physical, run_slice, try_slice};

/// Where [`BUSY`] counts.
const COUNTS: u32 = 0x22_0000;
/// A guest with paging whose timer ticks each millisecond, and that counts, halts now and then, and sends a byte by COM1 at
/// each tick.
#[rustfmt::skip]
const BUSY: &[u8] = &[
    0xbc, 0x00, 0x00, 0x21, 0x00,             // mov esp, 0x210000
    0x0f, 0x01, 0x1d, 0x00, 0x00, 0x20, 0x00, // lidt [0x200000]
    0x0f, 0x20, 0xe0,                         // mov eax, cr4
    0x83, 0xc8, 0x10,                         // or eax, PSE
    0x0f, 0x22, 0xe0,                         // mov cr4, eax
    0xb8, 0x00, 0x00, 0x30, 0x00,             // mov eax, 0x300000
    0x0f, 0x22, 0xd8,                         // mov cr3, eax
    0x0f, 0x20, 0xc0,                         // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80,             // or eax, PG
    0x0f, 0x22, 0xc0,                         // mov cr0, eax
    0xb0, 0x11, 0xe6, 0x20,                   // 8259A master: ICW1
    0xb0, 0x20, 0xe6, 0x21,                   // ICW2: vectors 0x20 to 0x27
    0xb0, 0x04, 0xe6, 0x21,                   // ICW3
    0xb0, 0x01, 0xe6, 0x21,                   // ICW4
    0xb0, 0xfe, 0xe6, 0x21,                   // OCW1: only the timer
    0xb0, 0x34, 0xe6, 0x43,                   // 8254: counter 0, mode 2
    0xb0, 0xa9, 0xe6, 0x40,                   // counts of 1193
    0xb0, 0x04, 0xe6, 0x40,
    0x66, 0xba, 0xf9, 0x03,                   // mov dx, 0x3f9
    0xb0, 0x03, 0xee,                         // mov al, 3; out dx, al
    0x66, 0xba, 0xfc, 0x03,                   // mov dx, 0x3fc
    0xb0, 0x0b, 0xee,                         // mov al, 0xb; out dx, al
    0xfb,                                     // sti
    0xff, 0x05, 0x00, 0x00, 0x22, 0x00,       // again: inc dword [0x220000]
    0xd9, 0xe8,                               // fld1
    0xde, 0xc1,                               // faddp st1
    0x40,                                     // inc eax
    0xa9, 0xff, 0xff, 0x0f, 0x00,             // test eax, 0xfffff
    0x75, 0xee,                               // jnz again
    0xf4,                                     // hlt
    0xeb, 0xeb,                               // jmp again
];
/// Its handler of the timer's interrupt.
#[rustfmt::skip]
const TICK: &[u8] = &[
    0x60,                               // pusha
    0x66, 0xba, 0xf8, 0x03,             // mov dx, 0x3f8
    0xb0, b'.', 0xee,                   // mov al, '.'; out dx, al
    0xff, 0x05, 0x04, 0x00, 0x22, 0x00, // inc dword [0x220004]
    0xb0, 0x20, 0xe6, 0x20,             // end of interrupt
    0x61,                               // popa
    0xcf,                               // iret
];

fn config(engine: Engine) -> VmConfig {
    VmConfig {
        memory: 16 << 20,
        vcpu: VcpuConfig {
            engine,
            verify_code: true,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    }
}

/// A machine that is about to run [`BUSY`].
fn busy(engine: Engine) -> Vm {
    let vm = machine(engine, &[BUSY, TICK].concat());
    let handler = START + BUSY.len() as u32;
    let write = |address: u32, bytes: &[u8]| {
        let address = GuestPhys::new(address.into());
        vm.memory().store_bytes(address, bytes).unwrap();
    };
    // The flat code segment, selector 0x10, of a GDT at 0, and a page of 4 MiB for each there is.
    write(0x10, &0x00cf_9a00_0000_ffff_u64.to_le_bytes());
    for number in 0..4u32 {
        write(0x30_0000 + 4 * number, &(number << 22 | 0x83).to_le_bytes());
    }
    let table = DATA + 8;
    write(DATA, &[0xff, 0x07]);
    write(DATA + 2, &table.to_le_bytes());
    let gate = [
        handler & 0xffff | 0x10 << 16,
        handler & 0xffff_0000 | 0x8e00,
    ];
    for (at, half) in [0, 4].into_iter().zip(gate) {
        write(table + 8 * 0x20 + at, &half.to_le_bytes());
    }
    vm
}

fn encode(vm: &Vm) -> Vec<u8> {
    postcard::to_allocvec(&vm.save().unwrap()).unwrap()
}

/// The memory of a machine.
fn image(vm: &Vm) -> Vec<u8> {
    let mut bytes = vec![0; 16 << 20];
    vm.memory().file().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A file of guest memory that holds these bytes, as far as they are not zero.
fn file(image: &[u8]) -> File {
    let file = Memory::new(1 << 20).unwrap().file().try_clone().unwrap();
    for (page, at) in image.chunks(4096).zip((0..).step_by(4096)) {
        if page.iter().any(|&byte| byte != 0) {
            file.write_all_at(page, at).unwrap();
        }
    }
    file
}

/// Restores a machine and runs it a little. Returns why it was refused, if it was.
fn try_out(state: VmState, image: &[u8], engine: Engine) -> Result<(), String> {
    let vm = Vm::restore(&config(engine), state, file(image), Vec::new());
    let mut vm = vm.map_err(|error| error.to_string())?;
    for _ in 0..3 {
        vm.step(&mut Typed::default());
        let stop = try_slice(&mut vm);
        assert!(!matches!(stop, StopReason::Internal(_)), "{stop}");
    }
    vm.save().unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_state_of_random_bytes_is_refused_or_runs(
        slices in 0usize..40,
        engine in proptest::sample::select(&ENGINES),
        tampered in vec(vec((any::<Index>(), any::<u8>()), 1..4), 40),
        truncated in any::<Index>(),
    ) {
        let mut vm = busy(engine);
        for _ in 0..slices {
            run_slice(&mut vm);
        }
        let (bytes, image) = (encode(&vm), image(&vm));
        drop(vm);
        let cut = &bytes[..truncated.index(bytes.len())];
        prop_assert!(postcard::from_bytes::<VmState>(cut).is_err());
        for changes in tampered {
            let mut bytes = bytes.clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let Ok(state) = postcard::from_bytes::<VmState>(&bytes) else { continue };
            for engine in ENGINES {
                let refused = try_out(state.clone(), &image, engine).err();
                prop_assert_ne!(refused.as_deref(), Some(""));
            }
        }
    }
}

/// Another machine with the state and a copy of the memory of `vm`.
fn twin(vm: &Vm, engine: Engine) -> Vm {
    let state = postcard::from_bytes(&encode(vm)).unwrap();
    Vm::restore(&config(engine), state, file(&image(vm)), Vec::new()).unwrap()
}

fn count(vm: &Vm, at: u32) -> u32 {
    u32::from_le_bytes(physical(vm, at.into()))
}

/// Ticks that the guest has counted.
fn ticks(vm: &Vm) -> u32 {
    count(vm, COUNTS + 4)
}

/// Runs until the guest has counted `more` ticks more.
fn run_ticks(vm: &mut Vm, more: u32) {
    let before = ticks(vm);
    while ticks(vm).wrapping_sub(before) < more {
        run_slice(vm);
    }
}

fn policy(vector: u8, action: Action) -> Policy {
    let mut policy = Policy::new();
    policy.set_vector(vector, action);
    policy
}

#[test]
fn an_intercepted_event_and_the_decision_go_along() {
    for from in ENGINES {
        for to in ENGINES {
            for decision in [None, Some(Decision::Reflect), Some(Decision::Swallow)] {
                let mut vm = busy(from);
                run_ticks(&mut vm, 3);
                vm.set_policy(policy(0x20, Action::Intercept));
                let stop = vm.run(&mut Typed::default());
                let StopReason::Intercepted(event) = stop else {
                    panic!("{stop}")
                };
                if let Some(decision) = decision {
                    vm.decide(decision);
                }
                let before = ticks(&vm);
                let mut vm = twin(&vm, to);
                assert_eq!(vm.vcpu().intercepted(), Some(event));
                let stop = vm.step(&mut Typed::default());
                assert!(matches!(stop, StopReason::Stepped), "{stop}");
                let handler = START + BUSY.len() as u32;
                let delivered = decision != Some(Decision::Swallow);
                assert_eq!(
                    vm.vcpu().cpu.eip == u64::from(handler),
                    delivered,
                    "{decision:?}"
                );
                // The interrupt controllers have been told of the end: there are more.
                run_ticks(&mut vm, 3);
                assert!(ticks(&vm) >= before + 3);
            }
        }
    }
}

#[test]
fn an_interrupt_that_waits_and_a_halt_go_along() {
    for from in ENGINES {
        for to in ENGINES {
            let mut vm = busy(from);
            // Interrupts are off.
            for _ in 0..3 {
                vm.step(&mut Typed::default());
            }
            vm.inject(0x20);
            let mut vm = twin(&vm, to);
            run_ticks(&mut vm, 2);

            let mut vm = machine(from, HALT);
            run_slice(&mut vm);
            assert!(vm.vcpu().cpu.save(0).halted);
            let at = vm.vcpu().cpu.eip;
            let mut vm = twin(&vm, to);
            run_slice(&mut vm);
            let cpu = vm.vcpu().cpu.save(0);
            assert_eq!((cpu.halted, cpu.eip), (true, at));
        }
    }
}

/// A program that fills memory with numbers that the last depends on, and ends.
#[rustfmt::skip]
const NUMBERS: &[u8] = &[
    0xbf, 0x00, 0x00, 0x40, 0x00,       // mov edi, 0x400000
    0xb8, 0x01, 0x00, 0x00, 0x00,       // mov eax, 1
    0xdb, 0xe3,                         // fninit
    0xd9, 0xe8,                         // fld1
    0x69, 0xc0, 0x6d, 0x4e, 0xc6, 0x41, // again: imul eax, eax, 0x41c64e6d
    0x05, 0x39, 0x30, 0x00, 0x00,       // add eax, 0x3039
    0xab,                               // stosd
    0xd8, 0x47, 0xfc,                   // fadd dword [edi-4]
    0x0f, 0x6e, 0xc8,                   // movd mm1, eax
    0x0f, 0x77,                         // emms
    0xdb, 0xe3,                         // fninit
    0xdb, 0x47, 0xfc,                   // fild dword [edi-4]
    0xd9, 0x5f, 0x7c,                   // fstp dword [edi+124]
    0xd9, 0xe8,                         // fld1
    0x81, 0xff, 0x00, 0x00, 0x44, 0x00, // cmp edi, 0x440000
    0x72, 0xd8,                         // jb again
    0xe6, 0xf4,                         // out F4h, al
];

#[test]
fn a_program_ends_the_same_on_whatever_engines() {
    let end = |mut vm: Vm| {
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::DebugExit(_)), "{stop}");
        let mut cpu = vm.vcpu().cpu.save(0);
        (cpu.retired, cpu.delivered, cpu.time_stamp) = (0, 0, 0);
        (cpu, image(&vm))
    };
    let expected = end(machine(Engine::Emulator, NUMBERS));
    for from in ENGINES {
        for to in ENGINES {
            let mut vm = machine(from, NUMBERS);
            for steps in [1, 40, 9, 2] {
                for _ in 0..steps {
                    vm.step(&mut Typed::default());
                }
                let (cpu, memory) = end(twin(&vm, to));
                assert_eq!(cpu, expected.0, "{from:?}, {to:?}");
                assert!(memory == expected.1, "{from:?}, {to:?}");
                if !matches!(try_slice(&mut vm), StopReason::Paused) {
                    break;
                }
            }
        }
    }
}

/// A register that keeps what is written.
#[derive(Default)]
struct Register(u8);

impl Device for Register {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        self.0.into()
    }

    fn write(&mut self, _: IoAccess, value: u64, _: &mut DeviceContext<'_>) {
        self.0 = value as u8;
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        Ok(vec![self.0])
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        match *state {
            [value] => self.0 = value,
            _ => return Err(DeviceStateError::Impossible("the length")),
        }
        Ok(())
    }
}

/// A guest that writes 42 to a register, and ends with what it then reads.
#[rustfmt::skip]
const REGISTER: &[u8] = &[
    0xb0, 42,   // mov al, 42
    0xe6, 0x50, // out 0x50, al
    0xb0, 0,    // mov al, 0
    0xe4, 0x50, // in al, 0x50
    0xe6, 0xf4, // out F4h, al
];

fn register(name: &str) -> (Resources, Box<dyn Device>) {
    let line = Irq::new(5).unwrap();
    let resources = Resources::new(name).ports(0x50..=0x50).level_line(line);
    (resources, Box::new(Register::default()))
}

#[test]
fn the_devices_of_the_state_are_those_attached() {
    for engine in ENGINES {
        let mut vm = machine(engine, REGISTER);
        vm.attach(register("register").0, Register::default())
            .unwrap();
        for _ in 0..3 {
            vm.step(&mut Typed::default());
        }
        let state = vm.save().unwrap();
        let restore = |devices| {
            let memory = file(&image(&vm));
            Vm::restore(&config(engine), state.clone(), memory, devices)
        };
        let mut other = restore(vec![register("register")]).unwrap();
        let stop = other.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
        for (devices, message) in [
            (vec![], "there is no device \"register\" to restore"),
            (
                vec![register("other")],
                "no state, or several, for device \"other\"",
            ),
            (
                vec![register("register"), register("other")],
                "ports 0x0050 to 0x0050 are register's",
            ),
            (
                vec![(
                    Resources::new("register").ports(0x50..=0x50),
                    register("").1,
                )],
                "device \"register\": impossible value of the number of lines",
            ),
        ] {
            assert_eq!(restore(devices).err().unwrap().to_string(), message);
        }
    }
}

#[test]
fn a_machine_goes_on_without_devices_that_were_detached() {
    for engine in ENGINES {
        let mut vm = machine(engine, REGISTER);
        for name in ["COM2", "POST code"] {
            assert!(vm.detach(name).is_some());
        }
        vm.attach(register("POST code").0, Register::default())
            .unwrap();
        for _ in 0..3 {
            vm.step(&mut Typed::default());
        }
        let (state, memory) = (vm.save().unwrap(), file(&image(&vm)));
        let devices = vec![register("POST code")];
        let mut vm = Vm::restore(&config(engine), state, memory, devices).unwrap();
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
        assert!(vm.detach("COM2").is_none());
        assert!(vm.detach("COM1").is_some());
    }
}

#[test]
fn a_file_that_is_no_guest_memory_is_refused() {
    let vm = machine(Engine::Emulator, REGISTER);
    let state = vm.save().unwrap();
    let unsealed = tempfile::tempfile().unwrap();
    unsealed.set_len(1 << 32).unwrap();
    for file in [
        File::open("/dev/zero").unwrap(),
        tempfile::tempfile().unwrap(),
        unsealed,
    ] {
        let restored = Vm::restore(&config(Engine::Emulator), state.clone(), file, Vec::new());
        let error = restored.err().unwrap();
        assert!(matches!(error, RestoreError::Memory(_)), "{error}");
    }
}
