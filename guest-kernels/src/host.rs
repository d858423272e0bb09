//! The kernels of hosts, on which the module of `kmod/` is tested in a virtual machine.

use std::fmt;
use std::str::FromStr;

/// A Debian kernel for x86-64 whose image, headers and a few modules can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKernel {
    /// Linux 6.1, of Debian 12.
    Linux6_1,
    /// Linux 6.12, of Debian 12's backports.
    Linux6_12,
}

/// The error of a name that no kernel has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown host kernel \"{name}\"; known kernels: {}", HostKernel::ALL.map(HostKernel::name).join(", "))]
pub struct UnknownHostKernel {
    /// The name that was given.
    pub name: String,
}

impl HostKernel {
    /// All kernels.
    pub const ALL: [Self; 2] = [Self::Linux6_1, Self::Linux6_12];

    /// The version, which is also the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux6_1 => "6.1",
            Self::Linux6_12 => "6.12",
        }
    }
}

impl fmt::Display for HostKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HostKernel {
    type Err = UnknownHostKernel;

    fn from_str(name: &str) -> Result<Self, UnknownHostKernel> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| UnknownHostKernel {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kernel in HostKernel::ALL {
            assert_eq!(kernel.name().parse(), Ok(kernel));
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let error = "5.10".parse::<HostKernel>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown host kernel \"5.10\"; known kernels: 6.1, 6.12"
        );
    }
}
