// The server's side of fixed newstyle negotiation, sans-IO: bytes in, bytes out, one message a
// call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontends/nbd/export.h"
#include "frontends/nbd/protocol.h"
#include "frontends/nbd/request.h"

namespace nvmf::nbd {

class Negotiation {
 public:
  enum class Outcome : std::uint8_t {
    more,          // nothing decided yet: send `out`, then go on
    transmission,  // `out` is the last of the negotiation: device() and flags() hold
    finish,        // send `out`, then close in order
    broken,        // close at once: reason() says what the client did
  };

  /// `reactor` selects the device of an Export.
  Negotiation(const ExportList& exports, std::size_t reactor)
      : exports_(exports), reactor_(reactor) {}

  /// Appends the server's first words.
  static void greet(std::vector<std::byte>& out);

  /// Reads at most one message of the client's from the front of `in`, says in `consumed` how many
  /// bytes it took (0: the message is not complete), and appends the answer to `out`.
  /// An option of up to kOptionBytesMax must fit in the caller's buffer.
  Outcome take(std::span<const std::byte> in, std::size_t& consumed, std::vector<std::byte>& out);

  /// After Outcome::transmission.
  [[nodiscard]] host::BlockDevice& device() const { return *device_; }
  [[nodiscard]] std::uint16_t flags() const { return flags_; }
  [[nodiscard]] const Agreed& agreed() const { return agreed_; }
  /// After Outcome::broken and Outcome::finish, in words.
  [[nodiscard]] const std::string& reason() const { return reason_; }

 private:
  using Bytes = std::vector<std::byte>;

  Outcome take_client_flags(const std::byte* p);
  Outcome option(const OptionHeader& header, std::span<const std::byte> data, Bytes& out);
  Outcome export_name(std::string_view name, Bytes& out);
  Outcome info(Option option, std::span<const std::byte> data, Bytes& out);
  void list(Bytes& out) const;
  void structured_reply(Bytes& out);
  void extended_headers(Bytes& out);
  void contexts(Option option, std::span<const std::byte> data, Bytes& out);
  void choose(host::BlockDevice& device, std::uint16_t flags);
  [[nodiscard]] std::uint16_t flags_of(const host::BlockDevice& device) const;
  Outcome broken(std::string reason);
  static void reply(Bytes& out, Option option, OptionReplyType type,
                    std::span<const std::byte> data = {});
  static void refuse(Bytes& out, Option option, OptionReplyType type, std::string_view message);
  [[nodiscard]] host::BlockDevice* device_of(std::string_view name, const Export** found) const;

  const ExportList& exports_;
  std::size_t reactor_;
  bool have_client_flags_ = false;
  bool send_zeroes_ = true;
  Agreed agreed_;
  /// base:allocation was selected, for this one.
  const host::BlockDevice* allocation_of_ = nullptr;
  std::uint32_t options_ = 0;
  std::uint32_t skip_bytes_ = 0;  // of an option that was too long
  Option skipped_{};
  host::BlockDevice* device_ = nullptr;
  std::uint16_t flags_ = 0;
  std::string reason_;
};

}  // namespace nvmf::nbd
