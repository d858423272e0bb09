//! Virtual 8259A interrupt controllers, 8254 timer and interrupt lines.
