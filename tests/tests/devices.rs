//! The test kernel `devices` with devices of this program's: memory-mapped registers, a shared interrupt line, DMA.

use guest_kernels::test_kernel::{self, Verdict};
use tests::hang::PATIENCE;
use vmm::{
    BootSource, Device, DeviceContext, Engine, GuestPhys, IoAccess, IoRegion, Irq, Kernel, Level,
    Machine, MachineEvent, PortWidth, Resources, StopReason, VcpuConfig, Vm, VmConfig, Windows,
    console::pipe,
};

/// The memory that the kernel needs, in bytes.
const MEMORY: u64 = 16 << 20;

/// A device as the kernel describes it.
struct Station {
    regions: Vec<IoRegion>,
    storage: Vec<[u8; STORAGE]>,
    high: bool,
    /// The time at which the line rises by itself.
    deadline: Option<u64>,
    dma_address: u64,
    latest: u64,
}

const STORAGE: usize = 64;
const IDENTITY: u8 = 0x5a;

/// Registers behind the storage.
const REQUEST: u64 = 0x40;
const ACKNOWLEDGE: u64 = 0x44;
const TIMER: u64 = 0x48;
const DMA_ADDRESS: u64 = 0x4c;
const DMA: u64 = 0x50;
const LATEST: u64 = 0x54;
const UNMAP: u64 = 0x58;
const MAP: u64 = 0x5c;

impl Station {
    fn attach(vm: &mut Vm, name: &str, regions: Vec<IoRegion>) {
        let resources = regions.iter().cloned().fold(
            Resources::new(name).level_line(Irq::new(11).unwrap()),
            Resources::region,
        );
        let mut storage = vec![[0; STORAGE]; regions.len()];
        storage[0][0] = IDENTITY;
        let station = Self {
            regions,
            storage,
            high: false,
            deadline: None,
            dma_address: 0,
            latest: 0,
        };
        vm.attach(resources, station).unwrap();
    }

    /// The bytes of an access to the storage, if it is one.
    fn stored(&mut self, access: IoAccess) -> Option<&mut [u8]> {
        let IoAccess {
            region,
            offset,
            bytes,
        } = access;
        let start = usize::try_from(offset).unwrap();
        let place = self.storage[region].get_mut(start..start + usize::from(bytes))?;
        self.latest = u64::from(bytes) << 24 | (region as u64) << 16 | offset;
        Some(place)
    }

    fn drive(&mut self, high: bool, context: &mut DeviceContext<'_>) {
        self.high = high;
        context.set_line(0, Level::from_active(high));
    }
}

impl Device for Station {
    fn read(&mut self, access: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        if let Some(place) = self.stored(access) {
            let mut value = [0; 8];
            value[..place.len()].copy_from_slice(place);
            return u64::from_le_bytes(value);
        }
        match access.offset {
            REQUEST => self.high.into(),
            LATEST => self.latest,
            _ => u64::MAX,
        }
    }

    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        if let Some(place) = self.stored(access) {
            place.copy_from_slice(&value.to_le_bytes()[..place.len()]);
            return;
        }
        assert_eq!(access.bytes, 4, "{access:?}");
        match access.offset {
            REQUEST => self.drive(true, context),
            ACKNOWLEDGE => self.drive(false, context),
            TIMER => self.deadline = Some(context.now() + value),
            DMA_ADDRESS => self.dma_address = value,
            DMA => context
                .memory()
                .store(GuestPhys::new(self.dma_address), value as u32)
                .unwrap(),
            UNMAP => context.unmap(value as usize),
            MAP => context
                .map(value as usize, &self.regions[value as usize])
                .unwrap(),
            _ => panic!("{access:?}"),
        }
    }

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        if self.deadline.is_some_and(|at| at <= context.now()) {
            self.deadline = None;
            self.drive(true, context);
        }
    }

    fn next_deadline(&self, _: u64) -> Option<u64> {
        self.deadline
    }
}

/// A page of addresses.
fn page(start: u64) -> IoRegion {
    IoRegion::Mmio(start..=start + 0xfff)
}

/// A machine with the kernel and its devices.
fn machine(engine: Engine, windows: Windows) -> Vm {
    let kernel = test_kernel::all()
        .iter()
        .find(|kernel| kernel.name == "devices")
        .unwrap();
    let kernel = Kernel::read(kernel.elf.to_vec(), None, &mut |_| ()).unwrap();
    let config = VmConfig {
        memory: MEMORY,
        vcpu: VcpuConfig {
            engine,
            windows,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    let mut vm = Vm::boot(&config, &source).unwrap();
    let above_4_gib = 0x8_0000_0000;
    Station::attach(
        &mut vm,
        "station A",
        vec![
            IoRegion::Ports(0x300..=0x30f, PortWidth::Any),
            page(0xb_8000),
            page(0x200_0000),
            page(0xfee0_0000),
            page(above_4_gib),
        ],
    );
    Station::attach(&mut vm, "station B", vec![page(0xfed0_0000)]);
    vm
}

#[test]
fn the_kernel_finds_its_devices() {
    for (engine, windows) in [
        (Engine::Emulator, Windows::Never),
        (Engine::Translator, Windows::Never),
        (Engine::Translator, Windows::Always),
    ] {
        let (line, mut terminal) = pipe().unwrap();
        let (machine, events) = Machine::start(machine(engine, windows), line).unwrap();
        let event = events.recv_timeout(PATIENCE);
        let printed = terminal.take();
        let verdict = Verdict::parse(&printed).unwrap();
        assert!(
            verdict.failures.is_empty(),
            "{engine:?}: {:?}",
            verdict.failures
        );
        assert!(
            matches!(event, Ok(MachineEvent::Stopped(StopReason::DebugExit(0)))),
            "{engine:?}: {event:?}"
        );
        // The kernel skips everything where it finds no device.
        assert!(verdict.cases > 100, "{}", verdict.cases);
        machine.join().unwrap();
    }
}
