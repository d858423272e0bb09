//! [`Cable`]: a bounded wire between its far end, on a thread of its own, and a test.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use net::{Backend, Checksum, Config, Gateway, Waker, Wire};

use crate::hang::HUNG;

/// The number of frames in each direction.
const DEPTH: usize = 64;

#[derive(Default)]
struct Queues {
    to_guest: Mutex<VecDeque<Vec<u8>>>,
    from_guest: Mutex<VecDeque<Vec<u8>>>,
    arrived: Condvar,
    unplugged: AtomicBool,
    down: AtomicBool,
}

struct FarEnd(Arc<Queues>);

impl Wire for FarEnd {
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        match self.0.from_guest.lock().unwrap().pop_front() {
            Some(next) => {
                *frame = next;
                true
            }
            None => false,
        }
    }

    fn has_room(&mut self) -> bool {
        self.0.to_guest.lock().unwrap().len() < DEPTH
    }

    fn send(&mut self, frame: &mut [u8], checksum: Checksum) {
        checksum.complete(frame);
        let mut to_guest = self.0.to_guest.lock().unwrap();
        assert!(to_guest.len() < DEPTH, "sent without room");
        to_guest.push_back(frame.to_vec());
        self.0.arrived.notify_all();
    }
}

/// A far end that runs, and the guest's end of its wire.
pub struct Cable {
    queues: Arc<Queues>,
    waker: Waker,
    published: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    /// Starts a gateway.
    pub fn plug(config: &Config) -> Self {
        let gateway = Gateway::new(config).unwrap();
        let published = gateway.published().to_vec();
        let mut cable = Self::plug_into(gateway);
        cable.published = published;
        cable
    }

    /// Starts the far end of a cable.
    pub fn plug_into(mut backend: impl Backend + 'static) -> Self {
        let queues = Arc::new(Queues::default());
        let waker = backend.waker();
        let mut end = FarEnd(Arc::clone(&queues));
        let thread = std::thread::spawn(move || {
            while !end.0.unplugged.load(Ordering::SeqCst) {
                backend.turn(&mut end);
                end.0.down.store(!backend.is_up(), Ordering::SeqCst);
                backend.wait().unwrap();
            }
        });
        Self {
            queues,
            waker,
            published: Vec::new(),
            thread: Some(thread),
        }
    }

    /// Whether the far end says that the cable leads nowhere.
    pub fn is_down(&self) -> bool {
        self.queues.down.load(Ordering::SeqCst)
    }

    /// The host's addresses of the published ports.
    pub fn published(&self) -> &[SocketAddr] {
        &self.published
    }

    /// Whether the gateway can take one more frame soon.
    pub fn has_room(&self) -> bool {
        self.queues.from_guest.lock().unwrap().len() < DEPTH
    }

    /// Sends a frame to the gateway.
    pub fn send(&self, frame: Vec<u8>) {
        self.queues.from_guest.lock().unwrap().push_back(frame);
        self.waker.wake();
    }

    /// The next frame from the gateway, if one comes within `wait`.
    pub fn receive(&self, wait: Duration) -> Option<Vec<u8>> {
        let queue = self.queues.to_guest.lock().unwrap();
        let (mut queue, _) = self
            .queues
            .arrived
            .wait_timeout_while(queue, wait, |queue| queue.is_empty())
            .unwrap();
        let was_full = queue.len() >= DEPTH;
        let frame = queue.pop_front();
        drop(queue);
        if was_full {
            self.waker.wake();
        }
        frame
    }

    /// Waits until a frame has come, for `wait` at most.
    pub fn wait(&self, wait: Duration) {
        let queue = self.queues.to_guest.lock().unwrap();
        drop(
            self.queues
                .arrived
                .wait_timeout_while(queue, wait, |queue| queue.is_empty())
                .unwrap(),
        );
    }

    /// The first frame from the gateway from which `each` takes something.
    pub fn expect<T>(&self, mut each: impl FnMut(&[u8]) -> Option<T>) -> T {
        let start = Instant::now();
        while start.elapsed() < HUNG {
            if let Some(found) = self
                .receive(Duration::from_secs(1))
                .and_then(|frame| each(&frame))
            {
                return found;
            }
        }
        panic!("the frame has not come");
    }

    /// Whether the gateway still runs.
    pub fn is_alive(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.queues.unplugged.store(true, Ordering::SeqCst);
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the gateway has panicked");
        }
    }
}
