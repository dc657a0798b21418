//! The metadata service: what an instance may ask about itself, at 169.254.169.254, as on EC2 (IMDSv2).
//!
//! Who asks is told by the network and the source address, which the packet rules keep true. A token has to be got
//! first, by a method and a header that nobody can make a server in the guest send on their behalf; it is good for
//! the port that it was given to and no other. IMDSv1, which needs none, is not spoken.
//!
//! ```text
//! answer.rs     from a request to its answer
//! tokens.rs     tokens that need no memory
//! tree.rs       what there is to read, purely from the specification and the document
//! listeners.rs  a socket in each network's namespace
//! ```

mod answer;
mod listeners;
#[cfg(test)]
mod tests;
mod tokens;
mod tree;

pub use answer::Metadata;
pub use listeners::Listeners;
