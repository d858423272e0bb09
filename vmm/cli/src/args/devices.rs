//! The devices that a PC gets beside its own.

use clap::Args;
use vmm::{devices::virtio::DiskConfig, net::Publish};

use crate::{
    net::{self, Network},
    volume::Volume,
};

/// Devices.
#[derive(Args, Debug)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// Give the guest a disk in the image FILE, as /dev/vda, /dev/vdb and so on. ro: the guest can only read; snapshot: what it
    /// writes is lost at the end. The format is raw, or qcow2 if the name ends in .qcow2. May be given several times.
    #[arg(long, value_name = "FILE[,ro][,snapshot][,format=raw|qcow2]")]
    pub disk: Vec<DiskConfig>,
    /// Give the guest a virtio device with random numbers of the host.
    #[arg(long)]
    pub rng: bool,
    /// Share the directory HOST of this machine with the guest, whose init mounts it at GUEST, an absolute path. OPTIONS, with
    /// commas between them: ro (changes are refused), rw, and cache=none, cache=auto (the default: changes on the host show within
    /// a second) or cache=always. May be given several times. An init of your own mounts the directories by the tags volume0,
    /// volume1, ... of virtiofs.
    #[arg(short, long, value_name = "HOST:GUEST[:OPTIONS]")]
    pub volume: Vec<Volume>,
    /// Network of the guest: none, user, user,host-loopback or passt=SOCKET; boot has none by default, run user. A user network
    /// needs no privileges: connections and datagrams of the guest, which is 10.0.2.15, are carried by sockets of this process.
    /// 10.0.2.3 answers by the host's resolvers; with host-loopback, 10.0.2.2 leads to 127.0.0.1. passt=SOCKET is the network of a
    /// passt that listens at this Unix socket.
    #[arg(long, value_name = "NET")]
    pub net: Option<Network>,
    /// Let port HOST of the host (of 127.0.0.1, unless IP says otherwise) lead to port GUEST of the guest. Needs --net user. May be
    /// given several times.
    #[arg(short, long, value_name = "[IP:]HOST:GUEST[/udp]", value_parser = net::published)]
    pub publish: Vec<Publish>,
}
