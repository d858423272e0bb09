//! The handler of SIGSEGV, for faults of emitted code.
//!
//! Pages that a window does not show are inaccessible, so accesses to them fault. The handler notes in the context where and
//! why, and continues emitted code at the trampoline that exits. It finds the context by thread, touches nothing else, and
//! passes faults from elsewhere on to the handler that was there before.

use super::context::{Context, HostFault};
use nix::errno::Errno;
use nix::libc::{
    self, AT_HWCAP2, REG_ERR, REG_RIP, REG_TRAPNO, c_int, c_void, siginfo_t, ucontext_t,
};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::cell::Cell;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

/// The bit of AT_HWCAP2 that says that user code may set the bases of FS and GS (Linux, Documentation/arch/x86/x86_64/fsgs.rst).
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// The emitted code that a thread is about to execute.
pub struct Executing {
    /// The host addresses of the code cache.
    pub code: Range<u64>,
    /// Host address of the trampoline that exits after a fault.
    pub fault_exit: u64,
    /// The context with which it executes.
    pub context: *mut Context,
}

thread_local! {
    static EXECUTING: Cell<*const Executing> = const { Cell::new(ptr::null()) };
}

/// The handler of SIGSEGV that was there before that of this module, which is installed once in a process.
static BEFORE: OnceLock<Result<SigAction, Errno>> = OnceLock::new();

/// Whether emitted code may use windows: it has to set GS's base, and its faults have to be handled.
pub fn are_windows_possible() -> bool {
    // SAFETY: reads a value that the kernel gave the process when it started.
    let features = unsafe { libc::getauxval(AT_HWCAP2) };
    features & HWCAP2_FSGSBASE != 0 && can_handle_faults()
}

/// Whether the faults of emitted code can be handled.
pub fn can_handle_faults() -> bool {
    BEFORE.get_or_init(install).is_ok()
}

fn install() -> Result<SigAction, Errno> {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
    // SAFETY: `handle` only does what a handler may: it reads and writes memory that is there, and calls what was there before.
    unsafe { sigaction(Signal::SIGSEGV, &action) }
}

/// Calls `run`, which executes emitted code, and handles the faults of that code.
pub fn with_faults_handled(executing: &Executing, run: impl FnOnce()) {
    let outer = EXECUTING.replace(executing);
    run();
    EXECUTING.set(outer);
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let executing = EXECUTING.get();
    // SAFETY: the kernel calls with a `ucontext_t` for the interrupted code, which is this handler's to change.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[REG_RIP as usize] as u64;
    // SAFETY: `info` is the kernel's.
    let by_processor = unsafe { (*info).si_code } > 0;
    // SAFETY: not null, it is what `with_faults_handled` was called with, by the interrupted code of this very thread, and that
    // call has not returned.
    let ours = unsafe { executing.as_ref() }
        .filter(|executing| by_processor && executing.code.contains(&rip));
    let Some(executing) = ours else {
        return pass_on(signal, info, context);
    };
    let fault = HostFault {
        rip,
        // SAFETY: `info` is the kernel's; for SIGSEGV it has an address.
        address: unsafe { (*info).si_addr() } as u64,
        trap: registers[REG_TRAPNO as usize] as u32,
        error: registers[REG_ERR as usize] as u32,
    };
    // SAFETY: the context is there while emitted code runs, which shares it by raw pointers, as this does.
    unsafe { (*executing.context).fault = fault };
    registers[REG_RIP as usize] = executing.fault_exit as i64;
}

fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let before = BEFORE.get().and_then(|before| before.as_ref().ok());
    match before.map(SigAction::handler) {
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        Some(SigHandler::Handler(handler)) => handler(signal),
        Some(SigHandler::SigDfl | SigHandler::SigIgn) | None => {
            let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            // SAFETY: without a handler the fault, which comes again, ends the process, as it would have without this module.
            let _ends_all_the_same = unsafe { sigaction(Signal::SIGSEGV, &default) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::{env, ptr};

    /// The variable that tells the process which the test starts from the test itself.
    const FAULTS: &str = "REPLEX_TEST_FAULTS";

    #[test]
    fn a_fault_elsewhere_ends_the_process_as_ever() {
        if env::var_os(FAULTS).is_some() {
            assert!(are_windows_possible());
            // SAFETY: none: the process is to end here, and does nothing else.
            unsafe { ptr::null_mut::<u8>().wrapping_add(16).write_volatile(1) };
            return;
        }
        let name = "translate::signal::tests::a_fault_elsewhere_ends_the_process_as_ever";
        let this = env::current_exe().expect("the test's own program");
        let run = Command::new(this)
            .args(["--exact", name])
            .env(FAULTS, "1")
            .output();
        let status = run.expect("runs").status;
        assert_eq!(status.signal(), Some(Signal::SIGSEGV as i32), "{status}");
    }
}
