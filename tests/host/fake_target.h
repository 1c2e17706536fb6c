// A target that does as it is told: an NVMe/TCP controller with an in-memory namespace or more,
// whose every answer can be changed, delayed or left out. It knows just what a host's bring-up and
// data path need; the project's own controller is tested elsewhere.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nvme/admin.h"
#include "nvme/fabrics.h"
#include "nvme/identify.h"
#include "nvme/log_pages.h"
#include "sim/virtual_loop.h"
#include "transport/tcp/controller_qpair.h"

namespace nvmf::test {

inline constexpr const char* kSubnqn = "nqn.2024-01.org.example:fake";

struct FakeNamespace {
  nvme::IdentifyNamespace id;
  nvme::NamespaceDescriptors descriptors;
  std::vector<std::byte> bytes;
};

/// What the target saw.
struct SeenCommand {
  std::uint16_t qid = 0;
  nvme::Sqe sqe;
  std::vector<std::byte> data;  // of writes
  Instant at;
};

class FakeTarget {
 public:
  class Connection;

  explicit FakeTarget(sim::VirtualLoop& loop, std::string host = "10.0.0.1",
                      std::uint16_t port = 4420);
  ~FakeTarget();

  /// A namespace of `blocks` blocks of 2^lbads bytes.
  FakeNamespace& add_namespace(std::uint32_t nsid, std::uint64_t blocks, std::uint8_t lbads = 9);

  // Behaviour; for connections and commands from then on.
  tcp::ControllerQpairOptions qpair;
  nvme::ControllerCapabilities cap;
  nvme::IdentifyController id;
  std::optional<nvme::IdentifyNvmController> nvm;
  std::map<std::uint32_t, FakeNamespace> namespaces;
  std::uint32_t queues_granted = 64;
  std::uint32_t kato_reported_ms = 0;  // 0: as Connect asked
  bool becomes_ready = true;
  Duration ready_delay{};
  bool shuts_down = true;
  std::uint16_t cntlid = 7;
  bool flow_control_off = false;
  /// Whether the command was dealt with: answered in here, or left without an answer.
  std::function<bool(Connection&, transport::ControllerCommand&)> intercept;

  // What happened.
  std::vector<SeenCommand> seen;
  std::size_t accepted = 0;
  [[nodiscard]] std::size_t open_connections() const;
  [[nodiscard]] std::size_t count(std::uint16_t qid, std::uint8_t opcode) const;
  [[nodiscard]] std::vector<SeenCommand> io_commands(nvme::NvmOpcode opcode) const;
  /// Completes one waiting Asynchronous Event Request; false if there is none.
  bool send_event(nvme::AsyncEvent event);
  Connection* connection(std::uint16_t qid);

  class Connection final : public transport::ControllerQpairEvents {
   public:
    Connection(FakeTarget& target, std::unique_ptr<transport::Incoming> incoming);
    void on_command(transport::ControllerCommand& command) override;
    void on_data_received(transport::ControllerCommand& command, bool digest_ok) override;
    void on_data_sent(transport::ControllerCommand& command) override;
    void on_ended(const Error& reason) override;

    void respond(transport::ControllerCommand& c, nvme::Status status, std::uint64_t result = 0);
    /// Data, then success.
    void send(transport::ControllerCommand& c, std::vector<std::byte> data);

    FakeTarget& target;
    tcp::ControllerQpair qpair;
    std::uint16_t qid = 0xffff;
    bool ended = false;
    std::vector<transport::ControllerCommand*> event_requests;

   private:
    struct Transfer {
      std::vector<std::byte> bytes;
    };
    void execute(transport::ControllerCommand& c);
    void connect(transport::ControllerCommand& c);
    void fabrics(transport::ControllerCommand& c);
    void admin(transport::ControllerCommand& c);
    void identify(transport::ControllerCommand& c);
    void io(transport::ControllerCommand& c);
    std::map<transport::ControllerCommand*, Transfer> transfers_;
  };

 private:
  friend class Connection;
  sim::VirtualLoop& loop_;
  std::unique_ptr<transport::Listener> listener_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::uint32_t kato_ms_ = 0;
  std::uint32_t cc_ = 0;
  Instant enabled_at_{};
};

}  // namespace nvmf::test
