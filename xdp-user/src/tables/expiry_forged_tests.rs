//! Tests of expiry: what forged packets keep, and what they do not.

use super::*;

/// Sends a packet of a flow at the present moment.
fn packet(world: &World, spi: u32) {
    for slot in world.flows.arrays().iter() {
        let state = State::of(Word::load(&slot.hot[STATE]));
        if state == State::Live && table::snapshot(slot).expect("a live slot").spi() == spi {
            Word::store(&slot.hot[flow::SEEN], world.now << 32 | 1);
        }
    }
}

/// While a flow is found, the server's ESP proves nothing: a flow that outlives its session
/// would leave its peer without one for as long as it sends.
#[test]
fn a_flow_without_a_session_goes_though_it_sends() {
    let mut world = World::new();
    world.flow(A, 0x1000, Outbound, 100, 0);
    world.flow(B, 0x2000, Inbound, 100, 0);
    for _ in 0..SWEEP {
        packet(&world, 0x1000);
        packet(&world, 0x2000);
        world.run(1);
    }
    assert!(!world.is_there(0x1000) && !world.is_there(0x2000));
}

/// Whoever knows the address of a peer that has gone can send ESP in its name for ever.
#[test]
fn inbound_esp_alone_keeps_no_session() {
    let mut world = World::new();
    world.session(A, 0, 1 << 32 | 1);
    world.flow(A, 0x1000, Inbound, 100, 0);
    for _ in 0..3600 / 60 {
        packet(&world, 0x1000);
        world.run(60);
        assert!(
            world.has_session(A) && world.is_there(0x1000),
            "{}",
            world.now - START
        );
    }
    for _ in 0..(IDLE + 2 * SWEEP) / 60 + 1 {
        packet(&world, 0x1000);
        world.run(60);
    }
    packet(&world, 0x1000);
    world.run(SWEEP);
    assert!(
        !world.has_session(A),
        "the server has been silent for an hour"
    );
    assert!(!world.is_there(0x1000), "a packet every minute");
}

/// Who has proved itself by IKE has done so from an address that somebody else may forge afterwards.
#[test]
fn without_an_spi_of_the_server_inbound_esp_keeps_nothing() {
    let mut world = World::new();
    world.session(A, 0, 1);
    world.flow(A, 0x1000, Inbound, 100, 0);
    for _ in 0..(IDLE + 4 * SWEEP) / 10 {
        packet(&world, 0x1000);
        world.run(10);
    }
    assert!(!world.has_session(A) && !world.is_there(0x1000));
}

/// Guessed SPIs that get a packet now and then hold a place for the idle time, not for an hour.
#[test]
fn in_a_session_that_fills_up_a_silent_inbound_spi_goes_after_the_idle_time() {
    for (inbound, stays) in [(5, true), (6, false)] {
        let mut world = World::new();
        world.flow(A, 0x1000, Inbound, 100, IDLE + 1);
        world.flow(A, 0x2000, Inbound, 100, IDLE - SWEEP);
        world.flow(A, 0x3000, Outbound, 100, IDLE + 1);
        world.session(A, 0, 1 << 32 | inbound);
        world.run(SWEEP);
        assert_eq!(world.is_there(0x1000), stays, "{inbound}");
        assert!(world.is_there(0x2000) && world.is_there(0x3000));
    }
}

/// One packet of the server within the hour is enough.
#[test]
fn a_tunnel_that_only_receives_keeps_its_session() {
    let mut world = World::new();
    world.session(A, 0, 1 << 32 | 1);
    world.flow(A, 0x1000, Inbound, 100, 0);
    world.flow(A, 0x2000, Outbound, 100, 0);
    for minute in 0..300 {
        packet(&world, 0x1000);
        if minute % 50 == 0 {
            packet(&world, 0x2000);
        }
        world.run(60);
        assert!(world.has_session(A), "minute {minute}");
        assert!(
            world.is_there(0x1000) && world.is_there(0x2000),
            "minute {minute}"
        );
    }
}

/// Each SPI of the server pays for four inbound ones, and a client makes it open as many as it likes by
/// rekeying: where they are many, those that were replaced go after the idle time, and not the last.
#[test]
fn where_room_is_short_silent_spis_of_the_server_go_after_the_idle_time() {
    let short = 60 * BUCKETS as u64;
    for (outbound, filled, gives_way) in [
        (2, 0, false),
        (511, 0, false),
        (512, 0, true),
        (2, short, true),
        // Its only one.
        (1, short, false),
    ] {
        let mut world = World::new();
        world.session(A, 0, outbound << 32);
        Word::add(&world.meta[FLOW_ENTRIES], filled);
        world.flow(A, 0x1000, Outbound, 100, IDLE + 1);
        world.flow(A, 0x2000, Outbound, 1, IDLE - SWEEP);
        world.run(SWEEP);
        assert_eq!(world.is_there(0x1000), !gives_way, "{outbound} {filled}");
        assert!(
            world.is_there(0x2000),
            "the server's own need no second packet"
        );
    }
}
