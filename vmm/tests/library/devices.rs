//! Devices of the program's own.

use std::{
    io::{self, PipeReader, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm::{
    AttachError, Control, Device, DeviceContext, Engine, GuestPhys, IoAccess, Irq, Level, Machine,
    MachineEvent, Resources, Stop, StopReason, Vm, Watched, Watchpoint, console::pipe,
};

use crate::support::{DATA, ENGINES, HALT, PATIENCE, START, Typed, machine, physical, run_slice};

/// A button and a number. Reading offset 0 gives the number and ends the request for an interrupt; writing offset 1 presses the
/// button from inside.
struct Button {
    number: u8,
    pressed: Arc<AtomicBool>,
}

impl Device for Button {
    fn read(&mut self, access: IoAccess, context: &mut DeviceContext<'_>) -> u64 {
        assert_eq!((access.offset, access.bytes), (0, 1));
        self.pressed.store(false, Ordering::Relaxed);
        self.advance(context);
        self.number.into()
    }

    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        assert_eq!((access.offset, value), (1, 1));
        self.pressed.store(true, Ordering::Relaxed);
        self.advance(context);
    }

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        let pressed = self.pressed.load(Ordering::Relaxed);
        context.set_line(0, Level::from_active(pressed));
    }
}

/// The port at which guests find a button, and the line that it drives.
const PORT: u16 = 0x300;
const IRQ: u8 = 5;

/// A guest that ends with the number that it reads.
#[rustfmt::skip]
const READ: &[u8] = &[
    0x66, 0xba, 0x00, 0x03, // mov dx, 0x300
    0xec,                   // in al, dx
    0xe6, 0xf4,             // out 0xf4, al
];

/// The beginning of a guest that gets IRQ 5 as vector 0x25.
#[rustfmt::skip]
const LISTEN: &[u8] = &[
    0xbc, 0x00, 0x00, 0x21, 0x00,             // mov esp, 0x210000
    0x0f, 0x01, 0x1d, 0x00, 0x00, 0x20, 0x00, // lidt [0x200000]
    0xb0, 0x11, 0xe6, 0x20,                   // 8259A master: ICW1
    0xb0, 0x20, 0xe6, 0x21,                   // ICW2: vectors 0x20 to 0x27
    0xb0, 0x04, 0xe6, 0x21,                   // ICW3
    0xb0, 0x01, 0xe6, 0x21,                   // ICW4
    0xb0, 0xdf, 0xe6, 0x21,                   // OCW1: only IRQ 5
    0xfb,                                     // sti
];

/// again: hlt; jmp again
const WAIT: &[u8] = &[0xf4, 0xeb, 0xfd];
/// jmp to itself
const LOOP: &[u8] = &[0xeb, 0xfe];
/// mov dx, 0x301; mov al, 1; out dx, al; then wait
const PRESS: &[u8] = &[0x66, 0xba, 0x01, 0x03, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd];

fn irq(number: u8) -> Irq {
    Irq::new(number).unwrap()
}

/// A machine with a button of this number.
fn with_button(engine: Engine, code: &[u8], number: u8) -> (Vm, Arc<AtomicBool>) {
    let mut vm = machine(engine, code);
    let pressed = attach_button(&mut vm, number);
    (vm, pressed)
}

fn attach_button(vm: &mut Vm, number: u8) -> Arc<AtomicBool> {
    let pressed = Arc::new(AtomicBool::new(false));
    let button = Button {
        number,
        pressed: Arc::clone(&pressed),
    };
    let resources = Resources::new("button").ports(PORT..=PORT + 1);
    vm.attach(resources.edge_line(irq(IRQ)), button).unwrap();
    pressed
}

/// A machine whose guest executes `then`, and at IRQ 5 ends with what it reads at port 0x300.
fn interrupted(engine: Engine, then: &[u8]) -> Vm {
    let code = [LISTEN, then, READ].concat();
    let handler = START + (code.len() - READ.len()) as u32;
    let mut vm = machine(engine, &code);
    let mut write = |address: u32, bytes: &[u8]| {
        vm.write_physical(GuestPhys::new(address.into()), bytes)
            .unwrap();
    };
    // The flat code segment, selector 0x10, of a GDT at 0.
    write(0x10, &0x00cf_9a00_0000_ffff_u64.to_le_bytes());
    // The IDT behind its limit and base; an interrupt gate (SDM Vol. 3A, 6.11 "IDT Descriptors").
    let table = DATA + 8;
    write(DATA, &[0xff, 0x07]);
    write(DATA + 2, &table.to_le_bytes());
    let gate = [
        handler & 0xffff | 0x10 << 16,
        handler & 0xffff_0000 | 0x8e00,
    ];
    for (at, half) in [0, 4].into_iter().zip(gate) {
        write(table + 8 * 0x25 + at, &half.to_le_bytes());
    }
    vm
}

/// A machine as [`interrupted`] makes it, and the button, numbered 42, that interrupts it.
fn listening(engine: Engine, then: &[u8]) -> (Vm, Arc<AtomicBool>) {
    let mut vm = interrupted(engine, then);
    let pressed = attach_button(&mut vm, 42);
    (vm, pressed)
}

/// Runs [`LISTEN`]: the initialization of the controller forgets edges.
fn run_until_it_listens(vm: &mut Vm) {
    while vm.vcpu().cpu.eip < u64::from(START) + LISTEN.len() as u64 {
        run_slice(vm);
    }
}

fn assert_ends_with_42(vm: &mut Vm) {
    let stop = vm.run(&mut Typed::default());
    assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
}

#[test]
fn a_device_is_read() {
    for engine in ENGINES {
        let (mut vm, _) = with_button(engine, READ, 42);
        assert_ends_with_42(&mut vm);
        let report = vm.stats().to_string();
        assert!(
            report.contains("port 0300     1 reads, 0 writes\n"),
            "{report}"
        );
    }
}

#[test]
fn a_device_interrupts_after_an_access() {
    for engine in ENGINES {
        assert_ends_with_42(&mut listening(engine, PRESS).0);
    }
}

#[test]
fn a_device_interrupts_when_another_thread_says_so() {
    for engine in ENGINES {
        for then in [WAIT, LOOP] {
            let (mut vm, pressed) = listening(engine, then);
            run_until_it_listens(&mut vm);
            let control = vm.control();
            thread::scope(|scope| {
                scope.spawn(|| {
                    pressed.store(true, Ordering::Relaxed);
                    control.wake();
                });
                assert_ends_with_42(&mut vm);
            });
            assert!(!pressed.load(Ordering::Relaxed), "the guest has seen to it");
        }
    }
}

#[test]
fn conflicts_are_errors() {
    let (mut vm, pressed) = with_button(Engine::Emulator, READ, 0);
    let mut attach = |resources: Resources| {
        let pressed = Arc::clone(&pressed);
        vm.attach(resources, Button { number: 0, pressed })
    };
    let other = || Resources::new("other");
    for (ports, in_use, device) in [
        (0x3f0..=0x3ff, 0x3f8..=0x3ff, "COM1"),
        (0x2ff..=0x300, 0x2f8..=0x2ff, "COM2"),
        (PORT + 1..=0x310, PORT..=PORT + 1, "button"),
        (0x0..=0xffff, 0x20..=0x21, "chipset"),
        (0xcf0..=0xcff, 0xcf9..=0xcf9, "reset control"),
    ] {
        let error = attach(other().ports(ports)).unwrap_err();
        let (ports, device) = (in_use, device.into());
        assert_eq!(error, AttachError::PortsInUse { ports, device });
    }
    for (resources, message) in [
        (
            other().ports(PORT + 1..=0x310),
            "ports 0x0300 to 0x0301 are button's",
        ),
        (
            other().ports(0x310..=0x31f).edge_line(irq(IRQ)),
            "IRQ 5 is driven by button; only level triggered lines are shared",
        ),
        (
            other().level_line(irq(IRQ)),
            "IRQ 5 is driven by button; only level triggered lines are shared",
        ),
        (
            other().edge_line(Irq::TIMER),
            "IRQ 0 is driven by chipset; only level triggered lines are shared",
        ),
        (
            other().level_line(irq(13)),
            "IRQ 13 cannot be level triggered",
        ),
        (
            other().mmio(0xf_0000..=0xf_0fff),
            "addresses 0xc0000 to 0xfffff are memory's",
        ),
        (
            other().mmio(0xb_8000..=0x10_0000),
            "addresses 0xc0000 to 0xfffff are memory's",
        ),
        (
            other().mmio(0xff_ffff..=u64::MAX),
            "addresses 0x100000 to 0xffffff are memory's",
        ),
        (Resources::new("COM1"), "there is a device \"COM1\" already"),
    ] {
        let error = attach(resources).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    // Nothing of what was refused is left.
    let everything = other()
        .ports(0x302..=0x3e7)
        .mmio(0x1_0000_0000..=u64::MAX)
        .edge_line(irq(7))
        .level_line(irq(9));
    attach(everything).unwrap();
    assert_eq!(
        attach(Resources::new("late").mmio(u64::MAX..=u64::MAX)).map_err(|error| error.to_string()),
        Err("addresses 0x100000000 to 0xffffffffffffffff are other's".into())
    );
}

/// A device whose reads take long, and which tells the machine to pause meanwhile.
struct Slow {
    control: Control,
    /// Beginning and end of the read.
    read: Arc<Mutex<Option<[Instant; 2]>>>,
}

impl Device for Slow {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        let begin = Instant::now();
        thread::sleep(Duration::from_millis(200));
        self.control.pause();
        *self.read.lock().unwrap() = Some([begin, Instant::now()]);
        0
    }

    fn write(&mut self, _: IoAccess, _: u64, _: &mut DeviceContext<'_>) {}
}

#[test]
fn the_ticks_before_a_pause_are_owed() {
    /// A guest whose timer ticks each millisecond, and that reads port 0x300.
    #[rustfmt::skip]
    const TICK: &[u8] = &[
        0xb0, 0x11, 0xe6, 0x20, // 8259A master: ICW1
        0xb0, 0x20, 0xe6, 0x21, // ICW2: vectors 0x20 to 0x27
        0xb0, 0x04, 0xe6, 0x21, // ICW3
        0xb0, 0x01, 0xe6, 0x21, // ICW4
        0xb0, 0xfe, 0xe6, 0x21, // OCW1: only the timer
        0xb0, 0x34, 0xe6, 0x43, // 8254: counter 0, mode 2
        0xb0, 0xa9, 0xe6, 0x40, // counts of 1193
        0xb0, 0x04, 0xe6, 0x40,
        0x66, 0xba, 0x00, 0x03, // mov dx, 0x300
        0xec,                   // in al, dx
    ];
    for engine in ENGINES {
        let mut vm = machine(engine, &[TICK, LOOP].concat());
        let read = Arc::new(Mutex::new(None));
        let slow = Slow {
            control: vm.control(),
            read: Arc::clone(&read),
        };
        vm.attach(Resources::new("slow").ports(PORT..=PORT), slow)
            .unwrap();
        let start = Instant::now();
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::Paused), "{stop}");
        vm.control().pause();
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::Paused), "{stop}");
        let [begin, end] = read.lock().unwrap().unwrap();
        // Those of the pause, and of the guest's own delay before it read the port, may be lost.
        let elsewhere = (end.elapsed() + (begin - start)).as_millis();
        let ticks = vm.stats().timer;
        assert!(ticks.ticks > 150, "{ticks:?}");
        assert!(
            u128::from(ticks.lost) <= elsewhere + 2,
            "{ticks:?}, {elsewhere} ms elsewhere"
        );
    }
}

/// A device whose request comes by a pipe, a byte for each.
struct Bell(PipeReader);

impl Device for Bell {
    fn read(&mut self, _: IoAccess, context: &mut DeviceContext<'_>) -> u64 {
        context.set_line(0, Level::Low);
        42
    }

    fn write(&mut self, _: IoAccess, _: u64, _: &mut DeviceContext<'_>) {}

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::ZERO) == Ok(1) {
            self.0.read_exact(&mut [0]).unwrap();
            context.set_line(0, Level::High);
        }
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[test]
fn a_descriptor_of_a_device_wakes_a_halted_machine() {
    for engine in ENGINES {
        let mut vm = interrupted(engine, WAIT);
        let (reader, mut writer) = io::pipe().unwrap();
        let resources = Resources::new("bell").ports(PORT..=PORT);
        vm.attach(resources.level_line(irq(IRQ)), Bell(reader))
            .unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                // The machine halts meanwhile, or is not there yet.
                thread::sleep(Duration::from_millis(50));
                writer.write_all(b"!").unwrap();
            });
            assert_ends_with_42(&mut vm);
        });
    }
}

/// A device with a descriptor that it never reads from.
struct Ringing(PipeReader);

impl Device for Ringing {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        0
    }

    fn write(&mut self, _: IoAccess, _: u64, _: &mut DeviceContext<'_>) {}

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[test]
fn a_descriptor_that_stays_readable_holds_nothing_up() {
    for engine in ENGINES {
        for closed in [false, true] {
            let (mut vm, pressed) = listening(engine, WAIT);
            run_until_it_listens(&mut vm);
            let (reader, mut writer) = io::pipe().unwrap();
            vm.attach(Resources::new("ringing"), Ringing(reader))
                .unwrap();
            writer.write_all(b"!").unwrap();
            let writer = (!closed).then_some(writer);
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(50));
                    pressed.store(true, Ordering::Relaxed);
                });
                assert_ends_with_42(&mut vm);
            });
            drop(writer);
        }
    }
}

/// A device that reads as one number in every width, and switches the machine off when written.
struct Number(u64);

impl Device for Number {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        self.0
    }

    fn write(&mut self, _: IoAccess, _: u64, context: &mut DeviceContext<'_>) {
        context.stop(Stop::PowerOff);
    }
}

/// The address at which guests find a number.
const NUMBER: u64 = 0xd000_0000;

#[test]
fn devices_come_and_go_while_the_guest_runs() {
    /// A guest that copies the number to [`DATA`], for ever.
    #[rustfmt::skip]
    const COPY: &[u8] = &[
        0xa1, 0x00, 0x00, 0x00, 0xd0, // again: mov eax, [d0000000h]
        0xa3, 0x00, 0x00, 0x20, 0x00, // mov [0x200000], eax
        0xeb, 0xf4,                   // jmp again
    ];
    for engine in ENGINES {
        let mut vm = machine(engine, COPY);
        let copied = |vm: &mut Vm| {
            run_slice(vm);
            u32::from_le_bytes(physical(vm, DATA.into()))
        };
        let resources = || Resources::new("number").mmio(NUMBER..=NUMBER + 3);
        assert_eq!(copied(&mut vm), u32::MAX);
        for number in [1, 2] {
            vm.attach(resources(), Number(number)).unwrap();
            assert_eq!(u64::from(copied(&mut vm)), number);
            assert!(vm.attach(resources(), Number(number)).is_err());
            assert!(vm.detach("number").is_some());
            assert!(vm.detach("number").is_none());
            assert_eq!(copied(&mut vm), u32::MAX);
        }
    }
}

#[test]
fn a_device_switches_the_machine_off() {
    // mov [d0000000h], eax
    const WRITE: &[u8] = &[0xa3, 0x00, 0x00, 0x00, 0xd0];
    for engine in ENGINES {
        let mut vm = machine(engine, WRITE);
        let resources = Resources::new("number").mmio(NUMBER..=NUMBER + 3);
        vm.attach(resources, Number(0)).unwrap();
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::PowerOff), "{stop}");
    }
}

/// Switches the machine off when it is advanced for the last of so many times.
struct Countdown(u32);

impl Device for Countdown {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        0
    }

    fn write(&mut self, _: IoAccess, _: u64, _: &mut DeviceContext<'_>) {}

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 {
            context.stop(Stop::PowerOff);
        }
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        (self.0 > 0).then_some(now + 1_000_000)
    }
}

#[test]
fn a_device_switches_a_halted_machine_off_whenever_it_is_advanced() {
    for engine in ENGINES {
        for advances in 1..=8 {
            let mut vm = machine(engine, HALT);
            vm.attach(Resources::new("countdown"), Countdown(advances))
                .unwrap();
            let (line, _terminal) = pipe().unwrap();
            let (_machine, events) = Machine::start(vm, line).unwrap();
            let event = events.recv_timeout(PATIENCE);
            assert!(
                matches!(event, Ok(MachineEvent::Stopped(StopReason::PowerOff))),
                "{advances}: {event:?}"
            );
        }
    }
}

#[test]
fn instructions_are_not_fetched_from_a_device() {
    // mov eax, d0000000h; jmp eax
    const JUMP: &[u8] = &[0xb8, 0x00, 0x00, 0x00, 0xd0, 0xff, 0xe0];
    for engine in ENGINES {
        let mut vm = machine(engine, JUMP);
        let resources = Resources::new("number").mmio(NUMBER..=NUMBER + 0xfff);
        vm.attach(resources, Number(0x90)).unwrap();
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::Unsupported(_)), "{stop}");
    }
}

#[test]
fn a_device_without_a_state_keeps_the_board_from_being_saved() {
    let (vm, _) = with_button(Engine::Emulator, READ, 0);
    let error = vm.board().save().unwrap_err();
    assert_eq!(
        error.to_string(),
        "device \"button\": its state cannot be saved"
    );
}

/// A device that stores to [`DATA`] once a guest has written 1 to `DATA + 0x1000`, and does nothing more for a second.
struct Storing {
    is_done: bool,
}

impl Device for Storing {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        0
    }

    fn write(&mut self, _: IoAccess, _: u64, _: &mut DeviceContext<'_>) {}

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        let memory = context.memory();
        let flag: u32 = memory
            .load(GuestPhys::new(u64::from(DATA) + 0x1000))
            .unwrap();
        if flag == 1 && !std::mem::replace(&mut self.is_done, true) {
            memory.store(GuestPhys::new(DATA.into()), 7_u32).unwrap();
        }
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        Some(now + 1_000_000_000)
    }
}

#[test]
fn a_store_that_hits_a_watchpoint_stops_a_machine_that_goes_into_hlt_before_it_waits() {
    #[rustfmt::skip]
    const FLAG_AND_HALT: &[u8] = &[
        0xc7, 0x05, 0x00, 0x10, 0x20, 0x00, 1, 0, 0, 0, // mov dword [DATA + 0x1000], 1
        0xfb,                                           // sti
        0xf4,                                           // hlt
    ];
    for engine in ENGINES {
        let mut vm = machine(engine, FLAG_AND_HALT);
        vm.attach(Resources::new("storing"), Storing { is_done: false })
            .unwrap();
        vm.debugger_mut().add_watchpoint(Watchpoint {
            start: DATA.into(),
            len: 4,
            watched: Watched::Writes,
        });
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::Watchpoint(_)), "{stop}");
        assert_eq!(vm.stats().halted, 0);
    }
}
