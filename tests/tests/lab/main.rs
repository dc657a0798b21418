//! A cloud of several hosts.
