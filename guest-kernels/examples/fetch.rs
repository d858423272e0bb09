//! Fetches the named guests, or all of them without arguments, into the cache and prints where their images are. With
//! `--refresh` before the names it also downloads guests that the cache already has.

use std::error::Error;
use std::process::ExitCode;

use guest_kernels::{Guest, Stage, fetch, refresh};

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
    let guests = if names.is_empty() {
        Guest::ALL.to_vec()
    } else {
        names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_, _>>()?
    };
    for guest in guests {
        let images = get(guest, &mut |stage: &Stage| eprintln!("{guest}: {stage}"))?;
        println!("{}\n{}", images.kernel.display(), images.initrd.display());
    }
    Ok(())
}
