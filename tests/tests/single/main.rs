//! What needs one machine: the lab's own promises, and `make up` with all that a user does after it.

mod backup;
mod cli;
mod console;
mod debian;
mod fleet;
mod guides;
mod life;
mod machines;
mod ordeals;
mod replicas;
mod story;
mod terraform;
mod terraform_fleet;
mod up;
