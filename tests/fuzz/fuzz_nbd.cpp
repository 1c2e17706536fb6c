// A hostile NBD client's bytes for nbd::Session, over a device that completes in odd orders, late,
// and with errors.
//
// Whatever comes: what the session sends is NBD, with one reply to each request and the device's
// own bytes in it; writes reach the device as they were sent; nothing is allocated once the
// negotiation is over; and when the client and the device are done, the session is gone and all its
// buffers are back.
#include <cerrno>
#include <memory>
#include <vector>

#include "frontends/nbd/session.h"
#include "fuzz/hand_loop.h"
#include "fuzz/nbd_model.h"

namespace nvmf::fuzz {
namespace {

using nbd::Command;
using nbd::Option;

constexpr std::uint64_t kDeviceBytes = 1 << 20;

class Device final : public host::BlockDevice {
 public:
  explicit Device(bool plain) {
    info_.name = plain ? "nvmf0n1" : "nvmf0n2";
    info_.description = "a disk";
    info_.nsid = plain ? 1 : 2;
    info_.size_bytes = kDeviceBytes;
    info_.block_bytes = plain ? 512 : 4096;
    info_.read_only = !plain;
    info_.write_zeroes = plain;
    info_.deallocate = plain;
    info_.transfer_bytes_max = plain ? 32u << 20 : 256u << 10;
    pending.reserve(1024);
    queries.reserve(1024);
  }
  [[nodiscard]] const host::BlockInfo& info() const override { return info_; }
  /// Every second 4 KiB is said to be zeroes. Every third time it is said at once.
  bool extents(host::ExtentsRequest& r) override {
    NVMF_CHECK(r.complete != nullptr && !r.extents.empty() && r.length_bytes != 0);
    NVMF_CHECK(r.length_bytes <= info_.size_bytes &&
               r.offset_bytes <= info_.size_bytes - r.length_bytes);
    if (++asked_ % 3 == 0) {
      tell(r, 0);
      return true;
    }
    queries.push_back(&r);
    return false;
  }
  void complete_query(int error) {
    host::ExtentsRequest& r = *queries.front();
    queries.erase(queries.begin());
    tell(r, error);
    r.complete(r);
  }
  [[nodiscard]] bool busy() const { return !pending.empty() || !queries.empty(); }
  void submit(host::BlockRequest& r) override {
    NVMF_CHECK(r.complete != nullptr);
    const bool data = r.op == host::BlockOp::read || r.op == host::BlockOp::write;
    NVMF_CHECK(!data || (r.data != nullptr && r.length_bytes <= info_.transfer_bytes_max));
    if (r.op == host::BlockOp::write && !blind && inside(r)) {
      for (std::uint64_t i = 0; i < r.length_bytes; ++i) {
        NVMF_CHECK(r.data[i] == NbdModel::content(r.offset_bytes + i));
      }
    }
    pending.push_back(&r);
  }
  void complete(std::size_t which, int error) {
    host::BlockRequest& r = *pending[which];
    pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(which));
    r.error = inside(r) ? error : EINVAL;
    if (r.error == 0 && r.op == host::BlockOp::read) {
      for (std::uint64_t i = 0; i < r.length_bytes; ++i) {
        r.data[i] = NbdModel::content(r.offset_bytes + i);
      }
    }
    r.complete(r);
  }

  std::vector<host::BlockRequest*> pending;
  std::vector<host::ExtentsRequest*> queries;
  bool blind = false;  // what is written is not known

 private:
  static void tell(host::ExtentsRequest& r, int error) {
    r.error = error;
    r.count = 0;
    std::uint64_t at = r.offset_bytes;
    const std::uint64_t end = at + r.length_bytes;
    while (at < end && r.count < r.extents.size()) {
      const std::uint64_t to = std::min(end, at / 4096 * 4096 + 4096);
      r.extents[r.count++] = {to - at, at / 4096 % 2 == 1};
      at = to;
    }
  }
  unsigned asked_ = 0;
  [[nodiscard]] bool inside(const host::BlockRequest& r) const {
    if (r.op == host::BlockOp::flush) return true;
    return r.offset_bytes <= info_.size_bytes &&
           r.length_bytes <= info_.size_bytes - r.offset_bytes;
  }
  host::BlockInfo info_;
};

class Game final : public nbd::SessionOwner {
 public:
  explicit Game(Input input) : in_(input) {}

  void play() {
    set_up();
    for (int turn = 0; turn < 300 && !in_.empty() && session_ != nullptr; ++turn) step();
    end();
  }

  void session_gone(nbd::Session& session, const Error& reason) override {
    NVMF_CHECK(session_.get() == &session && !reason.message.empty());
    NVMF_CHECK(wire_->closed && session.under_way() == 0);
    session_.reset();
  }

 private:
  void set_up() {
    const std::uint8_t how = in_.u8();
    // Memory that is soon used up: a few chunks, and one client's reserve.
    arena_ = std::make_unique<nbd::BufferArena>(
        (std::size_t{how} % 4 + 2) * nbd::BufferArena::kChunkBytes + nbd::kReserveBytes, 1u);
    pool_ = std::make_unique<nbd::BufferPool>(*arena_, loop_);
    exports_.add(nbd::make_export({&plain_}));
    exports_.add(nbd::make_export({&small_}));
    session_ = std::make_unique<nbd::Session>(exports_, 0, *pool_, counters_, *this);
    session_->attach(loop_.make(*session_));
    wire_ = loop_.wire;
    wire_->do_open();
    if ((how & 0xc0) == 0) return;
    // Most programs begin with a client that is served.
    Bytes hello(4);
    store_be32(hello.data(), (how & 4) != 0 ? 3 : 1);
    feed(hello);
    const bool extended = (how & 0xc0) == 0x80;
    if (extended) option(Option::extended_headers, {});
    if ((how & 8) != 0) option(Option::structured_reply, {});
    if (extended || (how & 0xc0) == 0xc0) contexts((how & 32) != 0 ? "nvmf0n2" : "");
    if ((how & 16) != 0 && !extended) {
      option(Option::export_name, {});
    } else {
      go((how & 32) != 0 ? "nvmf0n2" : "", 0);
    }
    receive();
  }

  void step() {
    switch (in_.below(16)) {
      case 0:
        return options();
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        return request();
      case 6: {
        plain_.blind = small_.blind = true;
        return feed(in_.bytes(in_.u8()));
      }
      case 7:
      case 8:
        return complete(in_.u8(), in_.u8());
      case 9:
        return complete_all();
      case 10:
        wire_->name(in_.u8());
        return;
      case 11:
        wire_->release(in_.u16());
        return hear();
      case 12:
        return receive();
      case 13:
        chunk_ = in_.one_of<std::size_t>({SIZE_MAX, 1, 13, 28, 4000});
        return;
      case 14:
        if (session_ != nullptr) wire_->post();
        return;
      default:
        return special();
    }
  }

  void special() {
    switch (in_.below(10)) {
      case 0:
        return wire_->eof();
      case 1:
        return wire_->close();
      case 2:
        stopped_ = true;
        return session_->stop();
      case 3:
        if (!stopped_) return;
        cut_ = true;
        return session_->cut();
      case 4: {
        Bytes word(4);
        store_be32(word.data(), in_.u8() % 8);
        return feed(word);
      }
      case 5:
        return loop_.advance(std::chrono::milliseconds(in_.u8()));
      default:
        return receive();
    }
  }

  void options() {
    static constexpr Option kOptions[] = {Option::go,
                                          Option::info,
                                          Option::list,
                                          Option::structured_reply,
                                          Option::export_name,
                                          Option::abort,
                                          Option::starttls,
                                          Option::list_meta_context,
                                          Option::set_meta_context,
                                          Option::extended_headers,
                                          static_cast<Option>(77)};
    static constexpr const char* kNames[] = {"", "nvmf0n1", "nvmf0n2", "1", "none"};
    const Option o = in_.one_of(kOptions);
    const std::uint8_t how = in_.u8();
    if (o == Option::go || o == Option::info) {
      if (how < 200) return go(kNames[how % std::size(kNames)], in_.u8(), o);
    } else if (o == Option::set_meta_context && how < 100) {
      return contexts(kNames[how % std::size(kNames)]);
    } else if (how < 150) {
      return option(o, {});
    }
    Bytes data = in_.bytes(in_.u8());
    if (how > 250) data.resize(9000);
    option(o, data, how > 240 ? in_.u32() : 0);
  }

  void option(Option o, const Bytes& data, std::uint32_t lie = 0) {
    Bytes bytes(nbd::OptionHeader::kBytes);
    nbd::OptionHeader{o, static_cast<std::uint32_t>(data.size()) + lie}.encode(bytes.data());
    bytes.insert(bytes.end(), data.begin(), data.end());
    feed(bytes);
  }

  void contexts(std::string_view name) {
    Bytes data;
    const auto text = [&data](std::string_view s) {
      const std::size_t at = data.size();
      data.resize(at + 4);
      store_be32(data.data() + at, static_cast<std::uint32_t>(s.size()));
      for (const char c : s) data.push_back(static_cast<std::byte>(c));
    };
    text(name);
    const std::size_t at = data.size();
    data.resize(at + 4);
    store_be32(data.data() + at, 1);
    text(nbd::kAllocationContext);
    option(Option::set_meta_context, data);
  }

  void go(std::string_view name, std::uint8_t wants, Option o = Option::go) {
    Bytes data(4);
    store_be32(data.data(), static_cast<std::uint32_t>(name.size()));
    for (const char c : name) data.push_back(static_cast<std::byte>(c));
    const std::size_t count = wants & 7;
    const std::size_t at = data.size();
    data.resize(at + 2 + 2 * count);
    store_be16(data.data() + at, static_cast<std::uint16_t>(count));
    for (std::size_t i = 0; i < count; ++i) {
      store_be16(data.data() + at + 2 + 2 * i, static_cast<std::uint16_t>(i));
    }
    option(o, data);
  }

  void request() {
    static constexpr Command kCommands[] = {
        Command::read,  Command::write,        Command::read,         Command::write,
        Command::flush, Command::write_zeroes, Command::trim,         Command::cache,
        Command::read,  Command::disconnect,   Command::block_status, static_cast<Command>(99)};
    static constexpr std::uint32_t kLengths[] = {
        512,  4096, 1024,     0,         65536, 1, 262144, 1 << 20, (1 << 20) + 512,
        8192, 700,  32 << 20, 0xffffffff};
    const std::uint8_t which = in_.u8();
    Command command = kCommands[which % std::size(kCommands)];
    if (command == Command::disconnect && which < 128) command = Command::read;
    const std::uint8_t how = in_.u8();
    std::uint32_t length = in_.one_of(kLengths);
    std::uint64_t offset = std::uint64_t{in_.u16()} * 512 % kDeviceBytes;
    if (how < 180) {
      length = std::min<std::uint32_t>(length, 65536);
      offset = std::min<std::uint64_t>(offset, kDeviceBytes - length);
    } else if (how > 240) {
      offset = in_.u32() | std::uint64_t{in_.u32()} << 32;
    }
    std::uint16_t flags = how % 8 == 0 ? in_.u16() : how % 8 == 1 ? nbd::kFua : 0;
    if (model_.extended()) return extended_request(flags, command, offset, length);
    Bytes bytes(nbd::RequestHeader::kBytes);
    nbd::RequestHeader{flags, command, next_cookie_++, offset, length}.encode(bytes.data());
    if (command == Command::write) {
      // Of a huge one the beginning only: the rest is whatever is fed next.
      const std::uint32_t some = std::min<std::uint32_t>(length, 300'000);
      if (some < length) plain_.blind = small_.blind = true;
      for (std::uint32_t i = 0; i < some; ++i) bytes.push_back(NbdModel::content(offset + i));
    }
    feed(bytes);
  }

  void extended_request(std::uint16_t flags, Command command, std::uint64_t offset,
                        std::uint64_t length) {
    const std::uint8_t how = in_.u8();
    if (how > 230) length |= std::uint64_t{how} << 30;
    Bytes payload;
    if (command == Command::write && how < 220) {
      flags |= nbd::kPayloadLen;
      payload.resize(std::min<std::uint64_t>(length, 300'000));
      for (std::size_t i = 0; i < payload.size(); ++i) {
        payload[i] = NbdModel::content(offset + i);
      }
    } else if (command == Command::block_status && how < 120) {
      flags |= nbd::kPayloadLen;
      payload.resize(8 + std::size_t{how} % 3 * 4);
      store_be64(payload.data(), length);
      for (std::size_t at = 8; at < payload.size(); at += 4) {
        store_be32(payload.data() + at, how < 100 ? nbd::kAllocationContextId : how);
      }
      length = payload.size();
    }
    if (payload.size() < length) plain_.blind = small_.blind = true;
    Bytes bytes(nbd::RequestHeader::kExtendedBytes);
    nbd::RequestHeader{flags, command, next_cookie_++, offset, length}.encode_extended(
        bytes.data());
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    feed(bytes);
  }

  void complete(std::size_t which, std::uint8_t how) {
    static constexpr int kErrors[] = {EIO, ENOSPC, EINVAL, EPERM, ENOTSUP, ESHUTDOWN, ENODEV, 200};
    const int error = how < 200 ? 0 : kErrors[how % std::size(kErrors)];
    Device& device = plain_.busy() ? plain_ : small_;
    if (!device.busy()) return;
    const std::size_t before = begin_watch();
    const std::size_t allocations = sim::allocations();
    if (device.pending.empty() || (!device.queries.empty() && which % 2 == 1)) {
      device.complete_query(error);
    } else {
      device.complete(which % device.pending.size(), error);
    }
    if (before != kUnwatched && session_ != nullptr && wire_->well()) {
      NVMF_CHECK(sim::allocations() == allocations);
    }
  }

  void complete_all() {
    while (plain_.busy() || small_.busy()) complete(0, 0);
  }

  void feed(const Bytes& bytes) {
    std::span<const std::byte> rest(bytes);
    while (!rest.empty() && session_ != nullptr && wire_->alive() && !wire_->reset) {
      const std::size_t chunk = rest.size() > 500 && chunk_ < 100 ? 4000 : chunk_;
      const std::size_t n = std::min(rest.size(), chunk);
      const std::size_t before = begin_watch();
      const std::size_t taken = wire_->receive(rest.first(n), chunk);
      end_watch(before);
      model_.sent(rest.first(taken));
      rest = rest.subspan(taken);
      if (taken == n) continue;
      // It takes no more. A client that knows its business reads its replies now.
      if (deaf_++ % 4 == 3) complete_all();
      const std::size_t sent = wire_->name();
      receive();
      if (sent == 0 && stuck_++ > 20) return;
    }
  }

  void receive() {
    if (session_ == nullptr) return;
    const std::size_t before = begin_watch();
    wire_->flush();
    end_watch(before);
    hear();
  }
  void hear() {
    model_.received(wire_->sent);
    wire_->sent.clear();
  }

  static constexpr std::size_t kUnwatched = ~std::size_t{0};
  [[nodiscard]] std::size_t begin_watch() const {
    return model_.transmission() && wire_->well() ? wire_->allocations : kUnwatched;
  }
  void end_watch(std::size_t before) const {
    if (before != kUnwatched && wire_->well()) NVMF_CHECK(wire_->allocations == before);
  }

  void end() {
    if (session_ != nullptr && wire_->alive() && !wire_->reset) {
      for (int i = 0; i < 200 && (plain_.busy() || small_.busy() || i < 2); ++i) {
        complete_all();
        receive();
      }
      // A write whose payload is missing is the one request that may be left without a reply.
      if (wire_->well() && !model_.lost() && !model_.half_sent()) {
        NVMF_CHECK(model_.waiting() == 0);
      }
      NVMF_CHECK(!model_.half_received() || cut_);
      NVMF_CHECK(wire_->finished || !model_.saw_disconnect() || model_.lost());
    }
    wire_->close();
    complete_all();
    NVMF_CHECK(session_ == nullptr);
    NVMF_CHECK(pool_->used_bytes() == 0 && arena_->used_chunks() == 0);
  }

  Input in_;
  HandLoop loop_;
  Device plain_{true};
  Device small_{false};
  nbd::ExportList exports_;
  nbd::Counters counters_;
  std::unique_ptr<nbd::BufferArena> arena_;
  std::unique_ptr<nbd::BufferPool> pool_;
  std::unique_ptr<nbd::Session> session_;
  std::shared_ptr<Wire> wire_;
  NbdModel model_;
  std::uint64_t next_cookie_ = 1;
  std::size_t chunk_ = SIZE_MAX;
  unsigned deaf_ = 0;
  int stuck_ = 0;
  bool stopped_ = false;
  bool cut_ = false;
};

}  // namespace
}  // namespace nvmf::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nvmf::fuzz::Game(nvmf::fuzz::Input(data, size)).play();
  return 0;
}
