// A StreamUser that sends one byte string and keeps what it receives. For tests of Loops.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "transport/stream.h"

namespace nvmf::sim {

/// `n` bytes that differ by position and seed.
inline std::vector<std::byte> pattern(std::size_t n, std::uint64_t seed) {
  std::vector<std::byte> bytes(n);
  std::uint64_t x = seed * 0x9e3779b97f4a7c15U + 1;
  for (std::byte& b : bytes) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    b = static_cast<std::byte>(x >> 32);
  }
  return bytes;
}

class ByteUser : public transport::StreamUser {
 public:
  virtual ~ByteUser() = default;

  std::unique_ptr<transport::Stream> stream;
  std::vector<std::byte> outgoing;  // never reallocated while a part of it is under way
  std::size_t sent = 0;
  std::vector<std::byte> incoming;
  std::size_t room = SIZE_MAX;       // how many more bytes are wanted
  std::size_t range_bytes = 10'000;  // length of one range to send
  std::size_t place_bytes = 3'000;   // length of one place to receive
  std::size_t advances = 0;
  bool opened = false;
  bool eof = false;
  std::optional<Error> closed;

  /// Appends and wakes; only when all that was given before has been sent.
  void send(const std::vector<std::byte>& bytes) {
    outgoing.insert(outgoing.end(), bytes.begin(), bytes.end());
    stream->wake();
  }

  void on_open(transport::Stream&) override { opened = true; }
  std::size_t recv_vectors(std::span<iovec> out) override {
    staging_.resize(2 * place_bytes);
    const std::size_t n = std::min(place_bytes, room);
    if (n == 0) return 0;
    out[0] = {staging_.data(), n};
    const std::size_t more = std::min(place_bytes, room - n);
    if (more == 0) return 1;
    out[1] = {staging_.data() + place_bytes, more};
    return 2;
  }
  void recv_advance(std::size_t bytes) override {
    ++advances;
    if (room != SIZE_MAX) room -= bytes;
    incoming.insert(incoming.end(), staging_.begin(),
                    staging_.begin() + static_cast<std::ptrdiff_t>(bytes));
  }
  std::size_t send_vectors(std::span<iovec> out) override {
    std::size_t n = 0;
    for (std::size_t at = sent; at < outgoing.size() && n < out.size(); ++n) {
      const std::size_t length = std::min(range_bytes, outgoing.size() - at);
      out[n] = {outgoing.data() + at, length};
      at += length;
    }
    return n;
  }
  void send_advance(std::size_t bytes) override { sent += bytes; }
  void on_eof() override { eof = true; }
  void on_closed(const Error& reason) override { closed = reason; }

 private:
  std::vector<std::byte> staging_;
};

}  // namespace nvmf::sim
