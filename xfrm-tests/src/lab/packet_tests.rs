use super::*;

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn classify(frame: &[u8]) -> Packet {
    let cable = Cable { mac: HOST, ike_ports: (500, 4500) };
    read_frame(frame, UNIX_EPOCH, 0, cable).expect("it has an Ethernet header")
}

fn ethernet(source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&OTHER[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 packet with a header of 20 bytes. `offset` is the fragment offset in units of 8 bytes.
fn v4(protocol: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0];
    header.extend(offset.to_be_bytes());
    header.extend([64, protocol, 0, 0, 10, 99, 0, 1, 10, 99, 0, 2]);
    ethernet(HOST, 0x0800, &[&header[..], payload].concat())
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    header.extend([0u8; 32]);
    ethernet(HOST, 0x86dd, &[&header[..], payload].concat())
}

fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 4], data].concat()
}

fn ike_header() -> Vec<u8> {
    let mut header = vec![7u8; 28];
    header[17] = 0x20;
    header
}

#[test]
fn esp_is_known_by_its_protocol_and_spi() {
    let packet = classify(&v4(50, 0, &[0xc1, 0xd2, 0xe3, 0xf4, 0, 0, 0, 1]));
    assert_eq!((packet.kind, packet.spi), (Kind::Esp, Some(0xc1d2_e3f4)));
    assert_eq!(packet.direction, Direction::Out);
    assert_eq!(classify(&v4(50, 100, &[1; 8])).spi, None, "a later fragment holds no SPI");
}

#[test]
fn esp_behind_ipv6_extension_headers_is_found() {
    let hop_by_hop = [50, 0, 5, 2, 0, 0, 1, 0];
    let packet = classify(&v6(0, &[&hop_by_hop[..], &[0, 0, 0, 9]].concat()));
    assert_eq!((packet.kind, packet.spi, packet.family), (Kind::Esp, Some(9), Some(Family::V6)));
}

#[test]
fn on_the_nat_port_four_zero_bytes_mean_ike() {
    let ike = [&[0u8; 4][..], &ike_header()].concat();
    assert_eq!(classify(&v4(17, 0, &udp(4500, 4500, &ike))).kind, Kind::Ike);
    assert_eq!(classify(&v4(17, 0, &udp(4500, 4500, &[0, 0, 1, 0, 1]))).kind, Kind::UdpEsp);
    assert_eq!(classify(&v4(17, 0, &udp(4500, 4500, &[0xff]))).kind, Kind::UdpEsp);
}

#[test]
fn anything_else_on_port_500_is_clear() {
    assert_eq!(classify(&v4(17, 0, &udp(500, 500, &ike_header()))).kind, Kind::Ike);
    assert_eq!(classify(&v4(17, 0, &udp(40000, 500, b"hello"))).kind, Kind::Clear);
}

#[test]
fn discovery_is_not_clear_and_pings_are() {
    assert_eq!(classify(&ethernet(OTHER, 0x0806, &[0; 28])).kind, Kind::Discovery);
    assert_eq!(classify(&ethernet(OTHER, 0x0806, &[0; 28])).direction, Direction::In);
    assert_eq!(classify(&v6(58, &[135, 0])).kind, Kind::Discovery);
    assert_eq!(classify(&v4(2, 0, &[0x22, 0])).kind, Kind::Discovery);
    assert_eq!(classify(&v6(58, &[128, 0])).kind, Kind::Clear);
    assert_eq!(classify(&v4(1, 0, &[8, 0])).kind, Kind::Clear);
}

#[test]
fn a_later_fragment_of_udp_is_clear() {
    assert_eq!(classify(&v4(17, 185, &udp(500, 500, &ike_header()))).kind, Kind::Clear);
}

#[test]
fn a_marker_carries_its_token() {
    let data = [MARKER_LABEL, &42u64.to_be_bytes()].concat();
    assert_eq!(classify(&v6(17, &udp(5000, 9, &data))).kind, Kind::Marker(42));
}

#[test]
fn cut_off_packets_stay_clear() {
    let whole = v6(0, &[50, 0, 5, 2, 0, 0, 1, 0]);
    for length in 14..whole.len() {
        assert_eq!(classify(&whole[..length]).kind, Kind::Clear, "cut at {length}");
    }
}

#[test]
fn a_capture_that_is_still_written_is_read_up_to_the_last_whole_frame() {
    let frame = v4(50, 0, &[0; 8]);
    let length = u32::try_from(frame.len()).expect("small");
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4u32.to_le_bytes());
    file.extend([0; 16]);
    file.extend(1u32.to_le_bytes());
    for _ in 0..2 {
        file.extend(7u32.to_le_bytes());
        file.extend(250_000u32.to_le_bytes());
        file.extend(length.to_le_bytes());
        file.extend(1514u32.to_le_bytes());
        file.extend(&frame);
    }
    let cable = Cable { mac: HOST, ike_ports: (500, 4500) };
    let packets = read_pcap(&file, cable).expect("whole");
    assert_eq!(packets.len(), 2);
    assert_eq!(packets[0].time, UNIX_EPOCH + Duration::from_millis(7250));
    assert_eq!(packets[0].length, 1514);
    assert_eq!(read_pcap(&file[..file.len() - 1], cable).expect("cut").len(), 1);
    assert!(read_pcap(b"something else that is long enough", cable).is_err());
}

#[test]
fn an_error_of_icmp_says_what_it_is_about() {
    let about = v4(17, 0, &udp(40000, 500, &[0; 8]));
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0], &about[14..]].concat();
    let packet = classify(&v4(1, 0, &error));
    assert_eq!((packet.kind, packet.icmp), (Kind::Clear, Some((3, 3))));
    let said = packet.to_string();
    assert!(said.contains("icmp type 3 code 3") && said.contains("udp 40000 > 500"), "{said}");
    let about = v6(50, &[0xc1, 0xd2, 0xe3, 0xf4, 0, 0, 0, 1]);
    let packet = classify(&v6(58, &[&[1, 4, 0, 0, 0, 0, 0, 0], &about[14..]].concat()));
    assert_eq!(packet.quoted.expect("it quotes").spi, Some(0xc1d2_e3f4));
    assert!(classify(&v6(58, &[128, 0, 0, 0, 0, 0, 0, 0, 1])).quoted.is_none());
}
