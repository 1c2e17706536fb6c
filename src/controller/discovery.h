// What the discovery controllers of a target tell: the Discovery log page. Base 2.1 §5.1.12.3.1,
// NVMe/TCP 1.0 §3.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "controller/subsystem.h"
#include "nvme/address.h"

namespace nvmf::controller {

class DiscoveryService {
 public:
  explicit DiscoveryService(const std::vector<std::unique_ptr<Subsystem>>& subsystems)
      : subsystems_(subsystems) {}

  /// Header and one record for each subsystem that this host may use, reached at `local`, the
  /// address by which the host has reached us ("10.0.0.1:4420"): that one works for it, whatever we
  /// listen on; then the referrals. Between two changes equal for equal arguments.
  [[nodiscard]] std::vector<std::byte> log_page(const std::string& hostnqn,
                                                const std::string& local,
                                                std::uint16_t port_id) const;
  /// Records have changed: the next log has another generation. Namespaces are in no record.
  void changed() { ++generation_; }
  [[nodiscard]] std::uint64_t generation() const { return generation_; }

  // Referrals to other discovery services; changed() is for the caller. The error says why not.
  Result<void> add_referral(const nvme::HostPort& at);
  Result<void> remove_referral(const nvme::HostPort& at);
  [[nodiscard]] std::vector<nvme::HostPort> referrals() const;

 private:
  struct Referral {
    nvme::HostPort at;
    std::uint16_t number = 0;  // its PORTID, which tells the ports of that subsystem apart
  };

  const std::vector<std::unique_ptr<Subsystem>>& subsystems_;
  std::vector<Referral> referrals_;
  std::uint64_t generation_ = 1;
};

}  // namespace nvmf::controller
