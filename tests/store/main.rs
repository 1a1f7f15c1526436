//! The store on a disk: what it keeps, what it gives away, and what it survives.

mod common;
mod concurrency;
mod damage;
mod durability;
mod life;
mod steps;
mod tools;
mod worlds;
