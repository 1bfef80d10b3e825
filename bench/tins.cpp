// SPDX-License-Identifier: Apache-2.0
//
// libtins beside xdpipe's stages: read what a file of packets holds, say a digest of it, then how long
// a packet takes. `tins headers|dns FILE SECONDS`; the file has, for each packet, its length (32 bits,
// little endian) and its bytes: frames for `headers`, payloads for `dns`.
//
// Prints one line: packets, then a sum for each field, as readers.py makes them; then ns a packet.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <tins/tins.h>

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> read_packets(const char *path)
{
	std::ifstream file(path, std::ios::binary);
	Bytes all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
	std::vector<Bytes> packets;

	for (size_t at = 0; at + 4 <= all.size();) {
		uint32_t n;

		std::memcpy(&n, &all[at], 4);
		at += 4;
		if (n > all.size() - at)
			throw std::runtime_error("a packet is longer than the file");
		packets.emplace_back(all.begin() + (long)at, all.begin() + (long)(at + n));
		at += n;
	}
	return packets;
}

// A sum for each field, in which the packets have the weights 1, 2, ...
class Digest {
public:
	void next()
	{
		weight++;
		field = 0;
	}
	void add(uint64_t value)
	{
		if (field == sums.size())
			sums.push_back(0);
		sums[field++] += weight * value;
	}
	void add_address(const uint8_t *p)
	{
		uint64_t half[2] = {0, 0};

		for (int i = 0; i < 16; i++)
			half[i / 8] = half[i / 8] << 8 | p[i];
		add(half[0] * 3 + half[1]);
	}
	void add_text(const std::string &text)
	{
		uint64_t hash = 0xcbf29ce484222325u;

		for (unsigned char byte : text)
			hash = (hash ^ byte) * 0x100000001b3u;
		add(hash);
	}
	void print() const
	{
		std::printf("%llu", (unsigned long long)weight);
		for (uint64_t sum : sums)
			std::printf(" %llu", (unsigned long long)sum);
	}

private:
	uint64_t weight = 0;
	size_t field = 0;
	std::vector<uint64_t> sums;
};

struct Headers {
	uint8_t version, proto, ttl;
	uint8_t src[16], dst[16];
	uint16_t sport, dport;
	uint8_t tcp_flags;
};

void put_ipv4(uint8_t out[16], const Tins::IPv4Address &address)
{
	uint32_t raw = address; // network byte order, as it is in the packet

	std::memset(out, 0, 10);
	std::memset(out + 10, 0xff, 2);
	std::memcpy(out + 12, &raw, 4);
}

void put_ipv6(uint8_t out[16], const Tins::IPv6Address &address)
{
	std::copy(address.begin(), address.end(), out);
}

Headers read_headers(const Bytes &packet)
{
	Tins::EthernetII ethernet(packet.data(), (uint32_t)packet.size());
	Headers h = {};
	const Tins::PDU *ip;

	if (const Tins::IP *v4 = ethernet.find_pdu<Tins::IP>()) {
		h.version = 4;
		h.proto = v4->protocol();
		h.ttl = v4->ttl();
		put_ipv4(h.src, v4->src_addr());
		put_ipv4(h.dst, v4->dst_addr());
		ip = v4;
	} else {
		const Tins::IPv6 &v6 = ethernet.rfind_pdu<Tins::IPv6>();

		h.version = 6;
		h.proto = v6.next_header();
		h.ttl = v6.hop_limit();
		put_ipv6(h.src, v6.src_addr());
		put_ipv6(h.dst, v6.dst_addr());
		ip = &v6;
	}
	if (const Tins::TCP *tcp = ip->find_pdu<Tins::TCP>()) {
		h.sport = tcp->sport();
		h.dport = tcp->dport();
		h.tcp_flags = (uint8_t)tcp->flags();
	} else {
		const Tins::UDP &udp = ip->rfind_pdu<Tins::UDP>();

		h.sport = udp.sport();
		h.dport = udp.dport();
	}
	return h;
}

void take(Digest &digest, const Headers &h)
{
	digest.next();
	digest.add(h.version);
	digest.add_address(h.src);
	digest.add_address(h.dst);
	digest.add(h.proto);
	digest.add(h.ttl);
	digest.add(h.sport);
	digest.add(h.dport);
	digest.add(h.tcp_flags);
}

struct Question {
	uint16_t id, type;
	std::string name;
};

Question read_question(const Bytes &payload)
{
	Tins::DNS message(payload.data(), (uint32_t)payload.size());
	Tins::DNS::query query = message.queries().front();
	std::string name = query.dname();

	for (char &c : name)
		if (c >= 'A' && c <= 'Z')
			c = (char)(c + 32);
	return {message.id(), (uint16_t)query.query_type(), name};
}

void take(Digest &digest, const Question &q)
{
	digest.next();
	digest.add(q.id);
	digest.add_text(q.name);
	digest.add(q.type);
}

double cpu_ns()
{
	timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

template <typename Read> void measure(const std::vector<Bytes> &packets, double seconds, Read read)
{
	double began = cpu_ns(), spent = 0, n = 0;
	volatile unsigned seen = 0;
	Digest digest;

	for (const Bytes &packet : packets)
		take(digest, read(packet));
	digest.print();
	for (began = cpu_ns(); seconds > 0 && spent < seconds * 1e9; spent = cpu_ns() - began) {
		for (const Bytes &packet : packets) {
			auto fields = read(packet);

			seen = seen + *(const unsigned char *)&fields;
		}
		n += (double)packets.size();
	}
	std::printf(" %.3f\n", n > 0 ? spent / n : 0.0);
}

} // namespace

int main(int argc, char **argv)
try {
	if (argc != 4)
		throw std::runtime_error("usage: tins headers|dns FILE SECONDS");
	std::vector<Bytes> packets = read_packets(argv[2]);
	double seconds = std::atof(argv[3]);

	if (std::string(argv[1]) == "headers")
		measure(packets, seconds, read_headers);
	else
		measure(packets, seconds, read_question);
	return 0;
} catch (const std::exception &error) {
	std::fprintf(stderr, "tins: %s\n", error.what());
	return 1;
}
