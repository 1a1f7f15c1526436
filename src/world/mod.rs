//! What a world is: capture, verify, bring back.
