// Cuts a byte stream into PDUs, checks digests, and lands payload where its owner wants it.
//
// Receive into place: in the middle of a payload, recv_vectors() is {the rest of it in the owner's
// buffer, staging}: one system call, no copy of bulk data, no stall at PDU borders. Headers and
// what came with them pass through staging. No allocation after construction.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>

#include "transport/limits.h"
#include "transport/tcp/pdu.h"
#include "transport/tcp/pdu_validate.h"

namespace nvmf::tcp {

/// Why the stream cannot go on: what a TermReq says, or nothing (`drop`).
struct PduError {
  Fes fes = Fes::none;
  std::uint32_t fei = 0;
  bool drop = false;
};

struct PduView {
  CommonHeader common;
  std::span<const std::byte> header;  // HLEN bytes, valid during the call
  std::uint32_t data_bytes = 0;
};

/// Gets the PDUs. Called from inside PduReceiver::recv_advance().
class PduHandler {
 public:
  /// A valid header. Returns where its data_bytes of payload go (anything if there are none); that
  /// place stays valid until on_pdu_data(), or until the receiver is stopped.
  virtual std::expected<std::byte*, PduError> on_pdu(const PduView& pdu) = 0;
  /// The payload of the PDU last announced is in place. Not called if it had none.
  virtual void on_pdu_data(bool digest_ok) = 0;

 protected:
  ~PduHandler() = default;
};

class PduReceiver {
 public:
  explicit PduReceiver(PduHandler& handler);

  /// Changed by the owner when it has learned more (after ICReq/ICResp, after Connect).
  PduRules rules;

  std::size_t recv_vectors(std::span<iovec> out);
  void recv_advance(std::size_t bytes);

  /// No PDU is parsed any more; bytes still coming are taken and thrown away (the rest of a payload
  /// into its place, which was named). Also from inside the handler.
  void stop() { stopped_ = true; }
  [[nodiscard]] bool stopped() const { return stopped_; }

  /// In on_pdu_data(): how long the payload was.
  [[nodiscard]] std::uint32_t payload_bytes() const { return payload_bytes_; }

  /// Set when the peer broke the protocol; the receiver has then stopped.
  [[nodiscard]] const PduError* error() const { return failed_ ? &error_ : nullptr; }
  /// The header (as far as it came) that was being processed at the error: a TermReq's data.
  [[nodiscard]] std::span<const std::byte> offending_header() const {
    return {header_.data(), header_filled_ < kHeaderBytesMax ? header_filled_ : kHeaderBytesMax};
  }

 private:
  enum class Phase : std::uint8_t { common_header, header, padding, payload, digest };

  std::size_t consume(std::span<const std::byte> bytes);
  std::size_t fill_header(std::span<const std::byte> bytes, std::size_t until);
  [[nodiscard]] bool header_digest() const;
  void common_header_done();
  void header_done();
  void payload_started();
  void payload_advance(std::span<const std::byte> landed);
  void payload_done(bool digest_ok);
  void next_pdu();
  void fail(const PduVerdict& verdict);
  void fail(const PduError& error);

  PduHandler& handler_;
  std::unique_ptr<std::byte[]> staging_;
  std::array<std::byte, kHeaderBytesMax + kDigestBytes> header_{};
  std::array<std::byte, kDigestBytes> digest_{};
  Phase phase_ = Phase::common_header;
  std::size_t header_filled_ = 0;
  std::size_t digest_filled_ = 0;
  std::size_t padding_left_ = 0;
  CommonHeader common_;
  std::byte* place_ = nullptr;
  std::uint32_t payload_bytes_ = 0;
  std::uint32_t payload_filled_ = 0;
  std::uint32_t crc_ = 0;
  bool payload_digest_ = false;
  bool stopped_ = false;
  bool failed_ = false;
  PduError error_;
};

}  // namespace nvmf::tcp
