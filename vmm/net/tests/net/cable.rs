//! [`Cable`]: a bounded wire between a gateway on a thread of its own and a test.

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

use net::{Config, Gateway, Waker, Wire};

/// The time after which a test has hung.
const HUNG: Duration = Duration::from_secs(300);

/// The number of frames in each direction.
const DEPTH: usize = 64;

#[derive(Default)]
struct Queues {
    to_guest: Mutex<VecDeque<Vec<u8>>>,
    from_guest: Mutex<VecDeque<Vec<u8>>>,
    arrived: Condvar,
    unplugged: AtomicBool,
}

struct GatewayEnd(Arc<Queues>);

impl Wire for GatewayEnd {
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

    fn send(&mut self, frame: &[u8]) {
        let mut to_guest = self.0.to_guest.lock().unwrap();
        assert!(to_guest.len() < DEPTH, "sent without room");
        to_guest.push_back(frame.to_vec());
        self.0.arrived.notify_all();
    }
}

/// A gateway that runs, and the guest's end of its wire.
pub struct Cable {
    queues: Arc<Queues>,
    waker: Waker,
    published: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    /// Starts a gateway.
    pub fn plug(config: &Config) -> Self {
        let mut gateway = Gateway::new(config).unwrap();
        let queues = Arc::new(Queues::default());
        let waker = gateway.waker();
        let published = gateway.published().to_vec();
        let mut end = GatewayEnd(Arc::clone(&queues));
        let thread = std::thread::spawn(move || {
            while !end.0.unplugged.load(Ordering::SeqCst) {
                gateway.turn(&mut end);
                gateway.wait().unwrap();
            }
        });
        Self {
            queues,
            waker,
            published,
            thread: Some(thread),
        }
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
