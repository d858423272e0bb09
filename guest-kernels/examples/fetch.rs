//! Fetches guests by name (all of them without arguments) into the cache and prints where their images are.

use std::error::Error;

use guest_kernels::{Guest, Stage, fetch};

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let guests = if names.is_empty() {
        Guest::ALL.to_vec()
    } else {
        names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_, _>>()?
    };
    for guest in guests {
        let images = fetch(guest, &mut |stage: &Stage| eprintln!("{guest}: {stage}"))?;
        println!("{}\n{}", images.kernel.display(), images.initrd.display());
    }
    Ok(())
}
