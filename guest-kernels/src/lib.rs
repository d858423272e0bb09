//! Fetches distribution kernels and builds the test kernels.
