//! Fetches the named guests and kernels of hosts, or all guests without arguments, into the cache and prints where their images are.
//! With `--refresh` before the names it also downloads guests that the cache already has.

use std::error::Error;
use std::process::ExitCode;

use guest_kernels::{Guest, HostKernel, Stage, fetch, fetch_host, refresh};

fn main() -> ExitCode {
    match fetch_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fetch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fetch_all() -> Result<(), Box<dyn Error>> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let get = if names.first().is_some_and(|first| first == "--refresh") {
        names.remove(0);
        refresh
    } else {
        fetch
    };
    if names.is_empty() {
        names = Guest::ALL.map(|guest| guest.to_string()).into();
    }
    for name in names {
        let progress = &mut |stage: &Stage| eprintln!("{name}: {stage}");
        if let Ok(host) = name.parse::<HostKernel>() {
            println!("{}", fetch_host(host, progress)?.kernel.display());
            continue;
        }
        let images = get(name.parse()?, progress)?;
        println!("{}\n{}", images.kernel.display(), images.initrd.display());
    }
    Ok(())
}
