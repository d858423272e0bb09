//! The gateway with a guest that is a TCP/IP stack of its own, or hand-made frames, and servers on the host's loopback.

mod cable;
mod guest;
mod hang;
mod hostile;
mod neighbors;
mod packet;
mod publish;
mod stream;
mod tcp;
mod udp;
