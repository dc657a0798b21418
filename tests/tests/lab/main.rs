//! A cloud of several hosts: `make lab HOSTS=3`.

mod cards;
mod crashes;
mod damage;
mod network;
mod quota;
mod spread;
