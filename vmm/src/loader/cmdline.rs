//! The command line that every Linux kernel gets.

/// The part that is the same on every host. It names the console. A panic resets the machine at once, through the keyboard
/// controller, and leaves the mark by which [`crate::vm`] tells it from a reboot. The TSC, which is the host's, is reliable.
/// There are no ACPI tables and no ISA Plug and Play cards to look for. The kernel does not test its own cryptography before the
/// first process, which would be most of a boot's instructions.
const CMDLINE: &str = "console=ttyS0,115200 panic=-1 reboot=k,panic_warm tsc=reliable acpi=off noisapnp \
                       cryptomgr.notests";

/// Returns the command line that a Linux kernel needs on this machine, given the frequency of the TSC in kHz
/// ([`TscMeter`](crate::tsc::TscMeter)). Parameters appended to it override it where the kernel lets them.
pub fn linux_cmdline(tsc_khz: u64) -> String {
    format!("{CMDLINE} tsc_early_khz={tsc_khz}")
}
