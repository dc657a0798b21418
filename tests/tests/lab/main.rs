//! A cloud of several hosts: `make lab HOSTS=3`.

mod crashes;
mod network;
mod quota;
mod spread;
