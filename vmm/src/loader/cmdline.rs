//! What every Linux kernel is told.

/// Where its console is; to reset at once when it panics, through the keyboard controller, and to leave the trace by which
/// [`crate::vm`] tells a panic from a reboot; that the TSC, which is the host's, keeps time; not to look for ACPI tables and ISA
/// Plug and Play cards, which there are none of; and not to test its own cryptography before the first process, which is most of
/// a boot's instructions.
const CMDLINE: &str = "console=ttyS0,115200 panic=-1 reboot=k,panic_warm tsc=reliable acpi=off noisapnp \
                       cryptomgr.notests";

/// The command line that a Linux kernel needs on this machine, with the frequency of the TSC in kHz
/// ([`TscMeter`](crate::tsc::TscMeter)). What is put behind it wins where the kernel lets it.
pub fn linux_cmdline(tsc_khz: u64) -> String {
    format!("{CMDLINE} tsc_early_khz={tsc_khz}")
}
