//! A cloud of several hosts: `make lab HOSTS=3`.

mod architectures;
mod cards;
mod consoles;
mod crashes;
mod damage;
mod drain;
mod dual_stack;
mod frames;
mod groups;
mod hostile;
mod life;
mod migration;
mod network;
mod quota;
mod restart;
mod scene;
mod shared;
mod snapshots;
mod spread;
mod volumes;
