//! The end of a device whose ring is full of requests.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use nix::unistd::gettid;

use super::driver::{BUFFER, Driver, SIZE, WRITE};
use crate::{
    devices::virtio::{Interrupt, VirtQueue, VirtioDevice, Worker},
    threads::{ThreadKind, Threads},
};

/// A device whose first request takes until another thread sleeps.
struct Slow {
    served: Arc<AtomicUsize>,
    /// Told when the first request is served.
    began: Option<Sender<()>>,
    /// Tells the thread that will sleep.
    sleeper: Option<Receiver<i32>>,
    worker: Option<Worker>,
}

/// Waits until a thread of this process sleeps, or is gone.
fn wait_for_sleep(thread: i32) {
    let stat = format!("/proc/self/task/{thread}/stat");
    let mut seen = 0;
    while seen < 20 {
        let Ok(stat) = fs::read_to_string(&stat) else {
            return;
        };
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        seen = if state == Some(b'S') { seen + 1 } else { 0 };
        thread::sleep(Duration::from_millis(1));
    }
}

impl VirtioDevice for Slow {
    fn device_type(&self) -> u16 {
        42
    }

    fn queue_sizes(&self) -> &[u16] {
        &[SIZE]
    }

    fn connect(
        &mut self,
        queues: &[VirtQueue],
        _: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()> {
        let queue = queues[0].clone();
        let served = Arc::clone(&self.served);
        let (began, sleeper) = (self.began.take().unwrap(), self.sleeper.take().unwrap());
        self.worker = Some(Worker::start(
            threads,
            ThreadKind::Other("slow"),
            move |_| {
                queue.serve_all(|_, _| {
                    if served.fetch_add(1, SeqCst) == 0 {
                        began.send(()).unwrap();
                        wait_for_sleep(sleeper.recv().unwrap());
                    }
                    Ok(0)
                });
            },
        )?);
        Ok(())
    }

    fn notify(&mut self, queue: usize) {
        self.worker.as_ref().unwrap().notify(queue);
    }
}

/// Returns how many requests of a full ring are served when `end` comes during the first one.
fn served_until(end: impl FnOnce(Driver) + Send + 'static) -> usize {
    let served = Arc::<AtomicUsize>::default();
    let (began, beginning) = channel();
    let (sleeping, sleeper) = channel();
    let mut driver = Driver::new(Box::new(Slow {
        served: Arc::clone(&served),
        began: Some(began),
        sleeper: Some(sleeper),
        worker: None,
    }));
    driver.start(0, 0);
    driver.table(0x10_0000, &[(BUFFER, 8, WRITE, 0)]);
    for _ in 0..SIZE {
        driver.offer(0);
    }
    driver.notify(0);
    beginning.recv().unwrap();
    let ender = thread::spawn(move || {
        sleeping.send(gettid().as_raw()).unwrap();
        end(driver);
    });
    ender.join().unwrap();
    served.load(SeqCst)
}

#[test]
fn a_machine_that_ends_waits_for_the_request_being_served_only() {
    let served = served_until(drop);
    assert!(served < SIZE.into(), "{served}");
}

#[test]
fn a_reset_waits_for_the_request_being_served_only() {
    let at_reset = Arc::new(AtomicI32::new(0));
    let theirs = Arc::clone(&at_reset);
    let served = served_until(move |mut driver| {
        driver.write(super::driver::STATUS, sbe::Width::Byte, 0);
        theirs.store(driver.used().into(), SeqCst);
    });
    assert!(served < SIZE.into(), "{served}");
    assert_eq!(at_reset.load(SeqCst), served as i32);
}
