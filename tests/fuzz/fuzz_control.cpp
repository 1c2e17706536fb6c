// What clients and servers of the control socket may send: lines for control::Server from clients
// that come, hang, trickle and go; and answers for control::Call.
//
// Whatever comes: what the server sends is lines of JSON, each with "ok"; a client gets no more
// answers than it sent whole lines, and exactly as many if it stayed and was heard out; a call ends
// exactly once; and the server stops when it is told to.
#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "control/client.h"
#include "control/server.h"
#include "fuzz/input.h"
#include "sim/virtual_loop.h"

namespace nvmf::fuzz {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr std::size_t kPeersMax = 3;

/// The raw end of a connection.
class Peer final : public transport::StreamUser {
 public:
  std::unique_ptr<transport::Stream> stream;
  bool closed = false;
  bool opened = false;
  bool ended = false;  // it says nothing more
  std::size_t lines_sent = 0;
  std::size_t answers = 0;
  bool too_long = false;  // a line was: that is said once, and nothing is served any more
  /// Payloads were announced that did not follow: lines are not what they seem any more.
  bool garbled = false;
  bool follows = false;  // maybe: what comes is news, too

  /// `check` false: the peer of a Call, which may be told anything.
  explicit Peer(bool check) : check_(check) {}

  /// `trusted`: whole requests with their payloads, which have no newline.
  void send(std::string text, bool trusted = false) {
    if (closed || ended || text.empty() || queued_ > 300'000) return;
    for (const char c : text) {
      if (!trusted) look_for_payload(c);
      line_bytes_ = c == '\n' ? 0 : line_bytes_ + 1;
      if (c == '\n') ++lines_sent;
      if (line_bytes_ >= control::kRequestBytesMax) too_long = true;
    }
    queued_ += text.size();
    out_.push_back(std::move(text));
    stream->wake();
  }
  void finish() {
    if (closed || std::exchange(ended, true)) return;
    stream->finish(60s);
  }

  void on_open(transport::Stream&) override { opened = true; }
  std::size_t recv_vectors(std::span<iovec> out) override {
    out[0] = {place_.data(), place_.size()};
    return 1;
  }
  void recv_advance(std::size_t bytes) override {
    in_.append(place_.data(), bytes);
    for (;;) {
      const std::size_t skipped = std::min(skip_, in_.size());
      in_.erase(0, skipped);
      skip_ -= skipped;
      const std::size_t newline = in_.find('\n');
      if (newline == std::string::npos) return;
      if (check_) check_answer(std::string_view(in_).substr(0, newline));
      in_.erase(0, newline + 1);
    }
  }
  std::size_t send_vectors(std::span<iovec> out) override {
    std::size_t n = 0;
    std::size_t skip = sent_;
    for (std::string& s : out_) {
      if (n == out.size()) break;
      out[n++] = {s.data() + skip, s.size() - skip};
      skip = 0;
    }
    return n;
  }
  void send_advance(std::size_t bytes) override {
    sent_ += bytes;
    while (!out_.empty() && sent_ >= out_.front().size()) {
      sent_ -= out_.front().size();
      queued_ -= out_.front().size();
      out_.pop_front();
    }
  }
  void on_eof() override {}
  void on_closed(const Error&) override { closed = true; }

 private:
  void check_answer(std::string_view line) {
    const json answer = json::parse(line, nullptr, false);
    if (follows && answer.is_object() && !answer.contains("ok")) {
      NVMF_CHECK(answer.contains("news") || answer.contains("missed"));
      return;
    }
    NVMF_CHECK(answer.is_object() && answer.contains("ok") && answer["ok"].is_boolean());
    if (!answer["ok"].get<bool>()) {
      NVMF_CHECK(answer["error"].is_string() && answer["errno"].is_number());
    }
    if (answer.contains("payload_bytes")) skip_ = answer["payload_bytes"].get<std::size_t>();
    ++answers;
  }
  void look_for_payload(char c) {
    if (c != '\n') {
      if (line_.size() < control::kRequestBytesMax) line_ += c;
      return;
    }
    const json request = json::parse(line_, nullptr, false);
    line_.clear();
    if (!request.is_object()) return;
    if (request.contains("payload_bytes") || request.contains("room_bytes")) garbled = true;
    if (request.contains("verb") && request["verb"] == "follow") garbled = follows = true;
  }

  bool check_;
  std::string line_;
  std::size_t skip_ = 0;  // the rest of an answer's payload
  std::array<char, 4096> place_{};
  std::string in_;
  std::deque<std::string> out_;
  std::size_t sent_ = 0;
  std::size_t queued_ = 0;
  std::size_t line_bytes_ = 0;
};

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ServerGame {
 public:
  explicit ServerGame(Input input) : in_(input) {}

  void play() {
    const std::uint8_t how = in_.u8();
    if ((how & 1) != 0) loop_.pipe = {.max_chunk = 300, .random_split = true, .window_bytes = 1000};
    server_ = std::make_unique<control::Server>(loop_);
    server_->handle("echo", [](const json& args, control::Responder respond) {
      respond.succeed({{"args", args}});
    });
    server_->handle("fail", [](const json&, control::Responder respond) {
      respond.fail({"it does not want to", EPERM});
    });
    server_->handle("later", [this](const json&, control::Responder respond) {
      held_.push_back(std::move(respond));
    });
    server_->handle_payload(
        "turn", [](const json&, control::Server::Payload payload, control::Responder respond) {
          payload.bytes.resize(payload.room_bytes);
          respond.succeed(json::object(), std::move(payload.bytes));
        });
    server_->handle("follow", [this](const json&, control::Responder respond) {
      if (auto follower = respond.succeed_and_follow(json::object())) {
        followers_.push_back(std::move(*follower));
      }
    });
    NVMF_CHECK(server_->listen(at_).has_value());
    for (int turn = 0; turn < 100 && !in_.empty(); ++turn) step();
    end();
  }

 private:
  void step() {
    std::unique_ptr<Peer>& peer = peers_[current_];
    if (peer == nullptr) {
      peer = std::make_unique<Peer>(true);
      peer->stream = loop_.connect(at_, {}, *peer);
    }
    switch (in_.below(15)) {
      case 12:
        return peer->send(payload_request(), true);
      case 13:
        if (followers_.empty()) return;
        if (in_.flag()) return followers_.clear();
        for (auto& f : followers_)
          f.tell({{"news", std::string(std::size_t{in_.u8()} * 300, 'n')}});
        return;
      case 14:
        peer->follows = peer->garbled = true;
        return peer->send("{\"version\":2,\"verb\":\"follow\"}\n");
      case 0:
      case 1:
        return peer->send(text_of(in_.bytes(in_.u8())));
      case 2:
      case 3:
      case 4:
        return peer->send(request());
      case 5:
        return peer->send("\n");
      case 6:
        current_ = in_.below(kPeersMax);
        return;
      case 7:
        if (held_.empty()) return;
        if (in_.flag()) held_.front().succeed({{"late", in_.u8()}});
        held_.pop_front();
        return;
      case 8:
        return loop_.run_for(in_.one_of<Duration>({1ms, 1ms, 1s, 20s, 31s}));
      case 9:
        return loop_.run_until_idle();
      case 10:
        return in_.u8() < 200 ? peer->finish() : peer->stream->reset(Error{"gone"});
      default:
        return peer->send(std::string(std::size_t{in_.u8()} * 300, in_.flag() ? '[' : ' '));
    }
  }

  std::string payload_request() {
    const std::size_t bytes = std::size_t{in_.u8()} * in_.u8();
    return control::request_line({.verb = in_.flag() ? "turn" : "nobody",
                                  .payload_bytes = bytes,
                                  .room_bytes = std::size_t{in_.u8()} * 64},
                                 json::object()) +
           std::string(bytes, 'p');
  }

  /// Mostly a good request; its args are a value from the input.
  std::string request() {
    static constexpr const char* kVerbs[] = {"echo",   "later", "fail",
                                             "status", "",      "\\u0000\\ud800"};
    static constexpr const char* kVersions[] = {"1",     "2",    "1",      "3",
                                                "\"1\"", "null", "[[[]]]", "1e400"};
    std::string line = std::string("{\"version\":") + in_.one_of(kVersions) + ",\"verb\":\"" +
                       in_.one_of(kVerbs) + "\"";
    if (in_.flag()) line += ",\"args\":" + value(0);
    line += '}';
    if (in_.u8() > 230) line[in_.u8() % line.size()] = static_cast<char>(in_.u8());
    return line + '\n';
  }

  std::string value(int depth) {
    switch (in_.below(depth > 6 ? 6 : 9)) {
      case 0:
        return "null";
      case 1:
        return std::to_string(in_.u32());
      case 2:
        return "\"" + text_of(in_.bytes(in_.below(16))) + "\"";
      case 3:
        return "-1.5e" + std::to_string(in_.u8());
      case 4:
        return std::string(in_.u8(), '[') + std::string(in_.u8(), ']');
      case 5:
        return "\"\\u" + text_of(in_.bytes(4)) + "\"";
      case 6:
        return "[" + value(depth + 1) + "," + value(depth + 1) + "]";
      default:
        return "{\"k" + std::to_string(in_.below(4)) + "\":" + value(depth + 1) + "}";
    }
  }

  void end() {
    // Everybody who stays is heard out: what waits for a handler gets its answer.
    for (int i = 0; i < 1000; ++i) {
      loop_.run_for(100ms);
      if (held_.empty()) break;
      while (!held_.empty()) held_.pop_front();
    }
    for (const auto& peer : peers_) {
      if (peer == nullptr) continue;
      NVMF_CHECK(peer->answers <= peer->lines_sent + (peer->too_long ? 1 : 0));
      const bool heard_out = !peer->closed && !peer->ended && !peer->too_long && !peer->garbled;
      NVMF_CHECK(!heard_out || peer->answers == peer->lines_sent);
    }
    followers_.clear();
    bool stopped = false;
    server_->stop([&] { stopped = true; });
    NVMF_CHECK(loop_.run_until([&] { return stopped; }, 3s));
    NVMF_CHECK(server_->clients() == 0);
    server_.reset();
    loop_.shutdown();
    for (const auto& peer : peers_) NVMF_CHECK(peer == nullptr || peer->closed);
  }

  Input in_;
  sim::VirtualLoop loop_{1};
  const transport::Endpoint at_{.host = {}, .port = 0, .unix_path = "/run/fuzz.sock"};
  std::deque<control::Responder> held_;
  std::vector<control::Follower> followers_;
  std::unique_ptr<control::Server> server_;
  std::array<std::unique_ptr<Peer>, kPeersMax> peers_;
  std::size_t current_ = 0;
};

/// A call to a process that answers with what the input says.
void play_call(Input in) {
  sim::VirtualLoop loop(1);
  const transport::Endpoint at{.host = {}, .port = 0, .unix_path = "/run/fuzz.sock"};
  const std::uint8_t how = in.u8();
  if ((how & 1) != 0) loop.pipe = {.max_chunk = 3, .random_split = true};
  Peer peer(false);
  auto listener = loop.listen(at, [&](std::unique_ptr<transport::Incoming> incoming) {
    peer.stream = loop.adopt(std::move(incoming), peer);
  });
  int done = 0;
  control::Call call(loop, at, [&](const Result<void>& ok, const json& fields) {
    ++done;
    NVMF_CHECK(!ok || (fields.is_object() && fields["ok"] == true));
    NVMF_CHECK(ok || !ok.error().message.empty());
  });
  call.start("echo", json::object(), 5s);
  loop.run_for(1ms);
  while (!in.empty() && peer.stream != nullptr) {
    switch (in.below(6)) {
      case 0:
        peer.send("\n");
        break;
      case 1:
        loop.run_for(std::chrono::milliseconds(in.u8() * 10));
        break;
      case 2:
        peer.finish();
        break;
      case 3:
        peer.send("{\"ok\":" + std::string(in.flag() ? "true" : "false") + ",\"error\":" +
                  text_of(in.bytes(in.u8() % 32)) + ",\"errno\":" + std::to_string(in.u32()) + "}");
        break;
      default:
        peer.send(text_of(in.bytes(in.u8())));
    }
  }
  loop.run_for(10s);
  NVMF_CHECK(done == 1);
  loop.shutdown();
  NVMF_CHECK(done == 1);
}

}  // namespace
}  // namespace nvmf::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nvmf::fuzz::Input input(data, size);
  if (input.u8() % 4 == 0) {
    nvmf::fuzz::play_call(input);
  } else {
    nvmf::fuzz::ServerGame(input).play();
  }
  return 0;
}
