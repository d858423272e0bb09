//! The replex virtual machine monitor: boot protocol, devices, run loop, command line.
