#include "face_kernel.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "frontends/nbd/kernel_devices.h"
#include "host/log.h"
#include "io/socket_pair.h"
#include "nvme/text.h"
#include "tool_places.h"

namespace nvmf::tools {

namespace {

/// Of each socket: some of the largest requests that the kernel makes (1.25 MiB).
constexpr int kSocketBytes = 4 << 20;

template <std::size_t N>
void add_identifier(std::string& to, std::string_view name, const std::array<std::byte, N>& value) {
  if (std::ranges::all_of(value, [](std::byte b) { return b == std::byte{0}; })) return;
  to += fmt::format(" {}=", name);
  for (const std::byte b : value) to += fmt::format("{:02x}", static_cast<unsigned>(b));
}

nbd::KernelSystem real_system() {
  return {.open = &nbd::open_kernel_nbd,
          .make_pair = []() -> Result<nbd::KernelSocketPair> {
            auto pair = io::make_socket_pair(kSocketBytes);
            if (!pair) return std::unexpected(pair.error());
            return nbd::KernelSocketPair{std::move(pair->ours), std::move(pair->theirs)};
          },
          .is_deserted = &io::is_deserted,
          .is_read = &io::is_read};
}

class KernelFace final : public Face {
 public:
  explicit KernelFace(const FaceContext& context) : devices_(context.loops, options(context)) {}

  [[nodiscard]] bool serving() const override { return !started_ || !devices_.views().empty(); }

  [[nodiscard]] std::vector<std::string> held() const override { return devices_.held(); }

  frontends::Frontend& frontend() override { return devices_; }

  void start(std::function<void(Result<void>)> on_started) override {
    devices_.start([this, on_started = std::move(on_started)](Result<void> how) {
      started_ = true;
      on_started(std::move(how));
    });
  }

  [[nodiscard]] std::string_view kind() const override { return kDevices; }

  [[nodiscard]] std::vector<std::string> places(const host::BlockInfo& ns) const override {
    std::vector<std::string> paths;
    for (const nbd::KernelDeviceView& view : devices_.views()) {
      if (view.nsid == ns.nsid) paths.push_back(view.path);
    }
    return paths;
  }

  [[nodiscard]] std::map<std::string, std::string> variables(
      const host::BlockInfo& first) const override {
    const std::vector<std::string> paths = places(first);
    if (paths.empty()) return {};
    return {{"device", paths.front()}};
  }

  void describe(nlohmann::json& status) const override {
    nlohmann::json& list = status["kernel_devices"] = nlohmann::json::array();
    for (const nbd::KernelDeviceView& view : devices_.views()) {
      list.push_back({{"path", view.path},
                      {"nsid", view.nsid},
                      {"connections", view.connections},
                      {"taken_over", view.taken_over}});
    }
  }

 private:
  static nbd::KernelDevicesOptions options(const FaceContext& context) {
    nbd::KernelDevicesOptions o;
    o.first_index = context.options.nbd_device->index;
    o.backend = context.identity;
    o.timeouts =
        nbd::kernel_timeouts(std::min(context.loops.size(), nbd::kConnectionsPerDeviceMax),
                             context.options.params.loss.ctrl_loss, context.writes_held_at_most);
    o.grace = context.grace;
    o.buffer_bytes = context.buffers.kernel;
    o.system = real_system();
    o.incoming = &io::incoming_of;
    o.on_gone = context.on_gone;
    o.tell = [](bool warning, const std::string& sentence) {
      host::log(warning ? host::LogLevel::warning : host::LogLevel::info, sentence);
    };
    return o;
  }

  bool started_ = false;
  nbd::KernelDevices devices_;
};

}  // namespace

std::unique_ptr<Face> make_kernel_face(const FaceContext& context) {
  return std::make_unique<KernelFace>(context);
}

std::string kernel_identity(const host::Namespace& ns) {
  std::string text = fmt::format("nvmf {} nsid={} block={}", nvme::printable(ns.subnqn),
                                 ns.info.nsid, ns.info.block_bytes);
  const std::size_t without = text.size();
  if (ns.uuid) add_identifier(text, "uuid", *ns.uuid);
  add_identifier(text, "nguid", ns.nguid);
  add_identifier(text, "eui64", ns.eui64);
  if (text.size() == without) {
    text += fmt::format(" serial={} size={}", nvme::printable(ns.serial), ns.info.size_bytes);
  }
  return text;
}

}  // namespace nvmf::tools
