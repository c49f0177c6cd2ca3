//! Capture formats, link types and headers.

use super::build::*;
use super::packets::Pcap;
use crate::passive::*;
use crate::time::WallTime;

const EXCHANGE: &str = "
    0     c S  seq=100 ts=1,0
    20.5  s SA seq=500 ack=101 ts=7,1
    20.75 c A  seq=101 ack=501 ts=2,7
    21    c A  seq=101 ack=501 len=10 ts=3,7
    41.25 s A  seq=501 ack=111 ts=8,3
";

/// The packets of a capture as time, link type, original length and data.
fn packets(capture: &[u8], chunk: usize) -> Vec<(Option<WallTime>, u16, u32, Vec<u8>)> {
    let mut stream = Stream::new(chunk);
    let mut found = Vec::new();
    let mut rest = capture;
    loop {
        let batch = stream.batch().unwrap();
        for packet in batch.iter() {
            found.push((
                packet.time,
                packet.link,
                packet.original,
                packet.data.to_vec(),
            ));
        }
        if batch.is_empty() {
            if rest.is_empty() {
                break;
            }
            let space = stream.space();
            let bytes = space.len().min(chunk).min(rest.len());
            space[..bytes].copy_from_slice(&rest[..bytes]);
            stream.filled(bytes);
            rest = &rest[bytes..];
        }
    }
    assert_eq!(stream.end(), None);
    found
}

#[test]
fn golden_bytes_of_pcap_in_both_orders_and_resolutions() {
    // One packet of two bytes at 1 s and 2 ticks, four bytes long on the network; link type 113.
    const LITTLE_MICRO: &[u8] =
        b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\xff\xff\0\0\x71\0\0\0\
        \x01\0\0\0\x02\0\0\0\x02\0\0\0\x04\0\0\0\xaa\xbb";
    const BIG_NANO: &[u8] = b"\xa1\xb2\x3c\x4d\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\x71\
        \0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\x04\xaa\xbb";
    for (capture, nanos) in [(LITTLE_MICRO, 2_000), (BIG_NANO, 2)] {
        let time = Some(WallTime(1_000_000_000 + nanos));
        assert_eq!(packets(capture, 1), [(time, 113, 4, vec![0xaa, 0xbb])]);
    }
}

#[test]
fn a_fraction_of_a_second_or_more_in_a_pcap_is_no_time() {
    for (nanos, most) in [(false, 999_999), (true, 999_999_999_u32)] {
        let file = Pcap { big: false, nanos };
        let mut capture = file.header();
        for fraction in [0, most, most + 1, u32::MAX] {
            let mut packet = file.packet(WallTime(5_000_000_000), 2, &[1, 2]);
            packet[4..8].copy_from_slice(&fraction.to_le_bytes());
            capture.extend(packet);
        }
        let ticks = if nanos { 1 } else { 1000 };
        let times: Vec<_> = packets(&capture, 64).iter().map(|of| of.0).collect();
        let last = 5_000_000_000 + u64::from(most) * ticks;
        let expected = [
            Some(WallTime(5_000_000_000)),
            Some(WallTime(last)),
            None,
            None,
        ];
        assert_eq!(times, expected, "nanoseconds: {nanos}");
    }
}

#[test]
fn golden_bytes_of_pcapng_with_an_enhanced_packet() {
    const SECTION: &[u8] = b"\x0a\x0d\x0d\x0a\0\0\0\x1c\x1a\x2b\x3c\x4d\0\x01\0\0\
        \xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x1c";
    // Link type 1, no snap length, if_tsresol 9.
    const INTERFACE: &[u8] =
        b"\0\0\0\x01\0\0\0\x1c\0\x01\0\0\0\0\0\0\0\x09\0\x01\x09\0\0\0\0\0\0\x1c";
    const PACKET: &[u8] = b"\0\0\0\x06\0\0\0\x24\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0\x02\0\0\0\x09\
        \xaa\xbb\0\0\0\0\0\x24";
    let capture = [SECTION, INTERFACE, PACKET].concat();
    let time = Some(WallTime((1 << 32) + 5));
    for chunk in [1, 7, 4096] {
        assert_eq!(packets(&capture, chunk), [(time, 1, 9, vec![0xaa, 0xbb])]);
    }
}

#[test]
fn pcapng_clocks_follow_resolution_and_offset_of_each_interface_and_section() {
    for big in [false, true] {
        let bytes = Bytes { big };
        let offset = if big {
            1000_i64.to_be_bytes()
        } else {
            1000_i64.to_le_bytes()
        };
        let mut capture = bytes.section();
        capture.extend(bytes.interface(1, 0, &[]));
        capture.extend(bytes.interface(101, 0, &[(9, &[3]), (14, &offset)]));
        capture.extend(bytes.interface(101, 3, &[(9, &[0x80 | 10])]));
        capture.extend(bytes.enhanced(0, 5, 1, b"a"));
        capture.extend(bytes.enhanced(1, 5, 1, b"b"));
        capture.extend(bytes.enhanced(2, 512, 1, b"c"));
        // An obsolete packet block: 16 bits of interface, 16 of drops.
        let number: [u8; 4] = if big { [0, 1, 0, 9] } else { [1, 0, 9, 0] };
        let words = [0, 6, 1, 1].map(|word| bytes.u32(word)).concat();
        capture.extend(bytes.block(2, &[&number[..], &words[..], b"d"].concat()));
        // A simple one: no time, the first interface.
        capture.extend(bytes.block(3, &[&bytes.u32(2)[..], b"ef"].concat()));
        // Another section begins in the other order, and its interfaces anew.
        let other = Bytes { big: !big };
        capture.extend(other.section());
        capture.extend(other.interface(113, 1, &[]));
        capture.extend(other.block(3, &[&other.u32(4)[..], b"g"].concat()));
        let second = 1_000_000_000;
        let expected = [
            (Some(WallTime(5_000)), 1, 1, b"a".to_vec()),
            (
                Some(WallTime(1000 * second + 5_000_000)),
                101,
                1,
                b"b".to_vec(),
            ),
            (Some(WallTime(second / 2)), 101, 1, b"c".to_vec()),
            (
                Some(WallTime(1000 * second + 6_000_000)),
                101,
                1,
                b"d".to_vec(),
            ),
            (None, 1, 2, b"ef".to_vec()),
            (None, 113, 4, b"g".to_vec()),
        ];
        assert_eq!(packets(&capture, 5), expected);
    }
}

#[test]
fn every_format_and_piece_size_gives_the_same_round_trips() {
    let segments = script(EXCHANGE);
    let mut captures: Vec<Vec<u8>> = Vec::new();
    for big in [false, true] {
        captures.extend([false, true].map(|nanos| pcap(&segments, big, nanos)));
        captures.push(pcapng(&segments, big));
    }
    for capture in captures {
        for chunk in [1, 100, 1 << 16] {
            let mut observed = Observed::default();
            let (tally, fault) = read(&capture, chunk, LIMITS, &mut observed);
            assert_eq!((tally.packets, tally.tcp_packets, fault), (5, 5, None));
            assert_eq!(observed.trips(Side::Client), [20.25]);
            let handshake = (
                observed.flows[0].syn_to_synack,
                observed.flows[0].synack_to_ack,
            );
            assert_eq!(handshake.0.map(|span| span.0), Some(20_500_000));
            assert_eq!(handshake.1.map(|span| span.0), Some(250_000));
        }
    }
}

fn parsed(link: u16, data: &[u8]) -> Result<TcpSegment<'_>, Skip> {
    let packet = Packet {
        time: None,
        link,
        interface: 0,
        original: data.len() as u32,
        data,
    };
    parse(&packet)
}

#[test]
fn each_link_type_leads_to_the_same_segment() {
    let mut built = script("0 c A seq=9 ack=8 len=3 ts=1,2").remove(0);
    for v6 in [false, true] {
        built.v6 = v6;
        let (ip, frame) = (built.ip(), built.frame());
        let expected = parsed(101, &ip).unwrap();
        assert_eq!((expected.payload_len, expected.payload), (3, &b"xxx"[..]));
        let kind = &frame[12..14];
        let behind = |header: &[u8]| [header, &ip].concat();
        let vlan = [&frame[..12], b"\x81\0\0\x05", kind].concat();
        let qinq = [&frame[..12], b"\x88\xa8\0\x05\x81\0\0\x06", kind].concat();
        let ppp: &[u8] = if v6 { b"\0\x57" } else { b"\0\x21" };
        let session = b"\x88\x64\x11\0\0\x07\0\x99";
        let pppoe = [&frame[..12], session, ppp].concat();
        let mpls = [&frame[..12], b"\x88\x47\0\x01\0\x40\0\x02\x01\x40"].concat();
        let ppp = [b"\xff\x03", ppp].concat();
        let cooked = [&[0; 14][..], kind].concat();
        let cooked2 = [kind, &[0; 18][..]].concat();
        let family: [&[u8]; 2] = if v6 {
            [b"\0\0\0\x1c", b"\x1e\0\0\0"]
        } else {
            [b"\0\0\0\x02", b"\x02\0\0\0"]
        };
        for (link, data) in [
            (1, frame.clone()),
            (1, behind(&vlan)),
            (1, behind(&qinq)),
            (1, behind(&pppoe)),
            (1, behind(&[&pppoe[..20], &pppoe[21..]].concat())),
            (1, behind(&mpls)),
            (51, behind(&pppoe[14..])),
            (9, behind(&ppp)),
            (50, behind(&ppp)),
            (104, behind(&[b"\x0f\0", kind].concat())),
            (113, behind(&cooked)),
            (276, behind(&cooked2)),
            (108, behind(family[0])),
            (0, behind(family[1])),
            (12, ip.clone()),
            (if v6 { 229 } else { 228 }, ip.clone()),
        ] {
            assert_eq!(parsed(link, &data), Ok(expected), "link type {link}");
            for cut in 0..data.len() {
                match parsed(link, &data[..cut]) {
                    Err(skip) => assert_eq!(skip, Skip::CutShort, "{cut} bytes"),
                    Ok(cut) => assert_eq!((cut.seq, cut.payload_len), (9, 3)),
                }
            }
        }
    }
    assert_eq!(
        parsed(
            1,
            b"\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x08\x06"
        ),
        Err(Skip::NotIp)
    );
    assert_eq!(parsed(105, &[0; 64]), Err(Skip::LinkType));
}

#[test]
fn inside_vxlan_a_segment_is_that_of_the_inner_connection_and_names_its_tunnel() {
    let mut built = script("0 c A seq=9 ack=8 len=3 ts=1,2").remove(0);
    built.v6 = true;
    let inner = built.frame();
    let expected = parsed(1, &inner).unwrap();
    let mut outer = b"\x45\0\0\0\0\0\0\0\x40\x11\0\0\x0a\0\0\x01\x0a\0\0\x02".to_vec();
    outer.extend(b"\xd0\x01\x12\xb5\0\0\0\0\x08\0\0\0\0\0\x2a\0");
    let length = (outer.len() + inner.len()) as u16;
    outer[2..4].copy_from_slice(&length.to_be_bytes());
    let whole = [&outer[..], &inner].concat();
    let found = parsed(101, &whole).unwrap();
    assert_eq!(found.tunnel, Some(Tunnel::Vxlan(42)));
    assert_eq!(Tunnel::Vxlan(42).to_string(), "VXLAN 42");
    assert_eq!(
        TcpSegment {
            tunnel: None,
            ..found
        },
        expected
    );
    for (at, value) in [(22, 1), (28, 0), (29, 1), (35, 1)] {
        let mut other = whole.clone();
        other[at] = value;
        assert_eq!(parsed(101, &other), Err(Skip::NotTcp), "byte {at}");
    }
}

#[test]
fn inside_gre_and_ip_a_segment_is_that_of_the_inner_connection_and_names_its_tunnel() {
    let mut built = script("0 c A seq=9 ack=8 len=3 ts=1,2").remove(0);
    for (v6, header, protocol, name) in [
        (false, &b"\0\0\x08\0"[..], 47, "GRE"),
        (true, b"\0\0\x86\xdd", 47, "GRE"),
        (false, b"\x20\0\x08\0\0\0\0\x07", 47, "GRE 7"),
        (
            true,
            b"\xb0\0\x65\x58\x01\x02\x03\x04\0\0\0\x08\0\0\0\x09",
            47,
            "GRE 8",
        ),
        (
            false,
            b"\x10\0\x88\xbe\0\0\0\x01\x10\0\0\0\0\0\0\0",
            47,
            "GRE",
        ),
        (false, b"\0\0\x88\xbe", 47, "GRE"),
        (false, b"", 4, "IP"),
        (true, b"", 41, "IP"),
    ] {
        built.v6 = v6;
        let is_bridged = header
            .get(2)
            .is_some_and(|high| ![0x08, 0x86].contains(high));
        let inner = if is_bridged {
            built.frame()
        } else {
            built.ip()
        };
        let ip = built.ip();
        let expected = parsed(101, &ip).unwrap();
        let whole = [header, &inner].concat();
        let mut outer = b"\x45\0\0\0\0\0\0\0\x40\0\0\0\x0a\0\0\x01\x0a\0\0\x02".to_vec();
        outer[9] = protocol;
        outer[2..4].copy_from_slice(&(20 + whole.len() as u16).to_be_bytes());
        let mut outer6 = [&[0x60, 0, 0, 0][..], &(whole.len() as u16).to_be_bytes()].concat();
        outer6.extend([protocol, 64]);
        outer6.extend([1; 32]);
        for outer in [outer, outer6] {
            let data = [&outer[..], &whole].concat();
            let found = parsed(101, &data).unwrap();
            assert_eq!(found.tunnel.unwrap().to_string(), name);
            let plain = TcpSegment {
                tunnel: None,
                ..found
            };
            assert_eq!(plain, expected, "{name}");
            for cut in 0..data.len() {
                match parsed(101, &data[..cut]) {
                    Err(skip) => assert_eq!(skip, Skip::CutShort, "{name}: {cut} bytes"),
                    Ok(cut) => assert_eq!((cut.seq, cut.payload_len), (9, 3)),
                }
            }
        }
    }
}

#[test]
fn tunnels_inside_of_tunnels_are_followed_to_a_depth() {
    let inner = script("0 c A seq=9 ack=8 len=3").remove(0).ip();
    let outer = b"\x45\0\0\0\0\0\0\0\x40\x04\0\0\x0a\0\0\x01\x0a\0\0\x02";
    for (depth, found) in [
        (8, Ok(9)),
        (9, Err(Skip::NotTcp)),
        (10_000, Err(Skip::NotTcp)),
    ] {
        let mut data = inner.clone();
        data.splice(0..0, outer.repeat(depth));
        for at in 0..depth {
            let length = (data.len() - 20 * at).min(0xffff) as u16;
            data[20 * at + 2..20 * at + 4].copy_from_slice(&length.to_be_bytes());
        }
        assert_eq!(
            parsed(101, &data).map(|segment| segment.seq),
            found,
            "{depth}"
        );
    }
    let labels = b"\0\0\x01\x40\0\0\0\0\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x88\x47"
        .repeat(10_000);
    let data = [&[2; 12][..], b"\x88\x47", &labels].concat();
    assert_eq!(parsed(1, &data), Err(Skip::NotTcp));
}

#[test]
fn an_ipv4_mapped_address_of_ipv6_is_shown_as_what_it_is() {
    let mut built = script("0 c A seq=9 ack=8").remove(0);
    let plain = parsed(101, &built.ip()).unwrap().source;
    built.v6 = true;
    let mut ip = built.ip();
    ip[8..24].copy_from_slice(b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01");
    let mapped = parsed(101, &ip).unwrap().source;
    assert_eq!(plain.to_string(), "10.0.0.1:40000");
    assert_eq!(mapped.to_string(), "[::ffff:10.0.0.1]:40000");
    assert!(mapped != plain);
}

#[test]
fn ethernet_padding_is_no_payload_and_a_cut_packet_keeps_its_length() {
    let built = script("0 c A seq=9 ack=8").remove(0);
    let mut frame = built.frame();
    frame.resize(60, 0xee);
    let segment = parsed(1, &frame).unwrap();
    assert_eq!((segment.payload_len, segment.payload), (0, &b""[..]));

    let frame = script("0 c A seq=9 ack=8 len=1000 ts=3,4")
        .remove(0)
        .frame();
    let segment = parsed(1, &frame[..70]).unwrap();
    assert_eq!((segment.payload_len, segment.payload.len()), (1000, 4));
    // Cut within the options: no timestamps, but the length is known.
    let segment = parsed(1, &frame[..60]).unwrap();
    assert_eq!((segment.payload_len, segment.timestamps), (1000, None));
}

#[test]
fn an_ip_length_of_zero_means_the_whole_packet() {
    let mut built = script("0 c A seq=9 ack=8 len=3000").remove(0);
    for (v6, length) in [(false, 16), (true, 18)] {
        built.v6 = v6;
        let mut frame = built.frame();
        frame[length..length + 2].fill(0);
        assert_eq!(parsed(1, &frame).unwrap().payload_len, 3000);
    }
}

#[test]
fn ipv6_extension_headers_are_passed_over_and_fragments_wait_for_each_other() {
    let mut built = script("0 c A seq=9 ack=8 len=3").remove(0);
    built.v6 = true;
    let ip = built.ip();
    let expected = parsed(101, &ip).unwrap();
    let with = |headers: &[u8], first: u8| {
        let mut out = ip[..40].to_vec();
        let length = (ip.len() - 40 + headers.len()) as u16;
        out[4..6].copy_from_slice(&length.to_be_bytes());
        out[6] = first;
        [&out[..], headers, &ip[40..]].concat()
    };
    // Hop-by-hop of 8 bytes, routing of 16, a fragment that is whole, authentication of 12,
    // destination options.
    let chain = [
        &[43, 0, 0, 0, 0, 0, 0, 0][..],
        &[44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[51, 0, 0, 0, 0, 0, 0, 0],
        &[60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(parsed(101, &with(&chain, 0)), Ok(expected));
    let later = [6, 0, 0x01, 0x01, 0, 0, 0, 0];
    assert_eq!(parsed(101, &with(&later, 44)), Err(Skip::Fragment));
    assert_eq!(
        parsed(101, &with(&[17, 0, 0, 0, 0, 0, 0, 0], 0)),
        Err(Skip::NotTcp)
    );

    built.v6 = false;
    let mut ip = built.ip();
    ip[6] = 0x20; // More fragments: the first one.
    assert_eq!(parsed(101, &ip), Err(Skip::Fragment));
    ip[6..8].copy_from_slice(&[0, 1]);
    assert_eq!(parsed(101, &ip), Err(Skip::Fragment));
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let frame = script("0 c A seq=9 ack=8 len=3").remove(0).frame();
    for (at, value) in [
        (14, 0x44), // An IPv4 header of 16 bytes.
        (14, 0x65), // Version 6 in an IPv4 frame.
        (17, 19),   // A packet shorter than its header.
        (17, 39),   // Shorter than both headers.
        (46, 0x40), // A TCP header of 16 bytes.
    ] {
        let mut frame = frame.clone();
        frame[at] = value;
        assert_eq!(
            parsed(1, &frame),
            Err(Skip::Malformed),
            "byte {at} = {value}"
        );
    }
}

#[test]
fn faults_name_packet_and_offset_and_what_precedes_them_counts() {
    let segments = script(EXCHANGE);
    let whole = pcap(&segments, false, false);
    let after_two = 24 + 2 * (16 + segments[0].frame().len());
    let mut damaged = whole.clone();
    damaged[after_two + 8..after_two + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    for (capture, text) in [
        (
            &whole[..after_two + 17],
            format!(
                "packet 3 at offset {after_two}: the capture is cut off, 17 of 82 bytes are there"
            ),
        ),
        (
            &damaged,
            format!("packet 3 at offset {after_two}: 4294967295 bytes in one piece, over 1048576"),
        ),
        (
            b"GET /",
            "packet 1 at offset 0: not a pcap or pcapng capture, it begins with [47, 45, 54, 20]"
                .into(),
        ),
        (
            b"\x34\xcd\xb2\xa1",
            "packet 1 at offset 0: a \"modified\" pcap, as old Linux kernels had it: convert it \
             with editcap -F pcap FILE NEW"
                .into(),
        ),
        (b"", "packet 1 at offset 0: the capture is empty".into()),
    ] {
        let mut observed = Observed::default();
        let (tally, fault) = read(capture, 1000, LIMITS, &mut observed);
        assert_eq!(fault.unwrap().to_string(), text);
        assert_eq!(
            tally.packets,
            if text.starts_with("packet 3") { 2 } else { 0 }
        );
        assert_eq!(observed.flows.len() as u64, tally.packets / 2);
    }
}
