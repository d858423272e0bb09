//! Images of all kinds, good and bad, made here and opened.

mod cached;
mod contents;
mod entries;
mod formats;
mod hostile;
mod layer;
mod make;
mod model;
mod random;
mod whiteouts;
