#include "face_nbd.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "frontends/nbd/server.h"
#include "frontends/nbd/uri.h"
#include "host/log.h"
#include "io/pages.h"
#include "tool_places.h"

namespace nvmf::tools {

namespace {

class NbdFace final : public Face {
 public:
  explicit NbdFace(const FaceContext& context)
      : wanted_(context.options.nbd), server_(context.loops, {}, options(context)) {
    if (!wanted_.empty()) return;
    transport::Endpoint standard;
    standard.unix_path = context.runtime.nbd_socket(context.name);
    wanted_.push_back(std::move(standard));
  }

  frontends::Frontend& frontend() override { return server_; }

  void start(std::function<void(Result<void>)> on_started) override { on_started(listen()); }

  [[nodiscard]] std::string_view kind() const override { return kUris; }

  [[nodiscard]] std::vector<std::string> places(const host::BlockInfo& ns) const override {
    std::vector<std::string> uris;
    uris.reserve(listening_.size());
    for (const transport::Endpoint& at : listening_) uris.push_back(nbd::uri(at, ns.name));
    return uris;
  }

  [[nodiscard]] std::map<std::string, std::string> variables(
      const host::BlockInfo& first) const override {
    return {{"uri", nbd::uri(listening_.front(), first.name)}};
  }

  void describe(nlohmann::json& status) const override {
    status["nbd_clients"] = server_.totals().clients;
  }

  void remove_traces() override {
    for (const transport::Endpoint& at : listening_) {
      if (at.is_unix() && at.handed_fd < 0) ::unlink(at.unix_path.c_str());
    }
  }

 private:
  static nbd::ServerOptions options(const FaceContext& context) {
    nbd::ServerOptions options;
    options.grace = context.grace;
    options.buffer_bytes = context.buffers.nbd;
    options.discard = &io::discard_pages;
    options.on_misbehaviour = [](const std::string& sentence) {
      host::log(host::LogLevel::warning, sentence);
    };
    return options;
  }

  Result<void> listen() {
    for (const transport::Endpoint& place : wanted_) {
      auto listening = server_.listen(place);
      if (!listening) return std::unexpected(listening.error());
      listening_.push_back(std::move(*listening));
    }
    return {};
  }

  std::vector<transport::Endpoint> wanted_;
  std::vector<transport::Endpoint> listening_;
  nbd::Server server_;
};

}  // namespace

std::unique_ptr<Face> make_nbd_face(const FaceContext& context) {
  return std::make_unique<NbdFace>(context);
}

}  // namespace nvmf::tools
