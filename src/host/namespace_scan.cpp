#include "host/namespace_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "host/log.h"
#include "nvme/admin.h"
#include "nvme/explain.h"

namespace nvmf::host {

namespace {

// Namespaces identified at the same time: hides the round trips, and leaves slots for others.
constexpr std::size_t kScanners = 8;

using Buffer = std::vector<std::byte>;

struct Scan {
  Association& association;
  Duration timeout;
  std::vector<std::uint32_t> nsids;
  std::size_t next = 0;
  bool descriptors = true;  // until the controller says that it has none
  std::optional<Error> error;
};

Task<Result<CommandOutcome>> identify(Scan& scan, nvme::Cns cns, std::uint32_t nsid, Buffer& out) {
  out.assign(nvme::kIdentifyBytes, std::byte{0});
  co_return co_await scan.association.admin().execute(
      nvme::identify(cns, nsid), transport::DataDirection::from_controller, out, scan.timeout);
}

/// All active identifiers, in rising order. A page of 1024 is followed by the one above its last.
Task<Result<void>> list_all(Scan& scan) {
  Buffer page;
  std::uint32_t above = 0;
  for (;;) {
    auto answer = co_await identify(scan, nvme::Cns::active_namespaces, above, page);
    if (!answer) co_return std::unexpected(answer.error());
    if (!answer->cqe.status.ok()) {
      co_return fail(fmt::format("the controller refused to list its namespaces: {}",
                                 nvme::explain(answer->cqe.status, nvme::StatusContext::admin)));
    }
    auto nsids = nvme::decode_namespace_list(page);
    if (!nsids) co_return std::unexpected(nsids.error());
    // Each page begins above the last: otherwise there would be no end to it.
    if (!nsids->empty() && nsids->front() <= above) {
      co_return fail(fmt::format("the controller lists namespace {} among those above {}",
                                 nsids->front(), above),
                     EPROTO);
    }
    scan.nsids.insert(scan.nsids.end(), nsids->begin(), nsids->end());
    if (nsids->size() < nvme::kNamespaceListEntries || nsids->back() >= nvme::kNsidAll - 1) {
      co_return Result<void>{};
    }
    if (scan.nsids.size() >= kNamespacesMax) {
      log(LogLevel::warning,
          fmt::format("{} has more than {} namespaces; those above namespace {} are left out",
                      scan.association.params().subnqn, kNamespacesMax, nsids->back()));
      co_return Result<void>{};
    }
    above = nsids->back();
  }
}

/// A refusal that says: there is no such namespace. Any other may be a controller that is not quite
/// ready yet.
bool says_gone(nvme::Status status) {
  return status.code() == nvme::StatusCode::invalid_namespace ||
         status.code() == nvme::StatusCode::invalid_field;
}

Task<Result<nvme::NamespaceDescriptors>> read_descriptors(Scan& scan, std::uint32_t nsid) {
  Buffer page;
  if (!scan.descriptors) co_return nvme::NamespaceDescriptors{};
  auto answer = co_await identify(scan, nvme::Cns::namespace_descriptors, nsid, page);
  if (!answer) co_return std::unexpected(answer.error());
  if (!answer->cqe.status.ok()) {
    // Controllers before NVMe 1.3 have none; for later ones it is a namespace that just went.
    if (scan.association.info.vs < nvme::kVersion13) {
      scan.descriptors = false;
    } else if (!says_gone(answer->cqe.status)) {
      scan.association.unsure_namespaces.push_back(nsid);
    }
    co_return nvme::NamespaceDescriptors{};
  }
  auto decoded = nvme::NamespaceDescriptors::decode(page);
  if (!decoded) {
    log(LogLevel::warning, fmt::format("namespace {}: {}", nsid, decoded.error().message));
    co_return nvme::NamespaceDescriptors{};
  }
  co_return *decoded;
}

/// An Error means that the queue is gone; for a namespace that cannot be used, nullptr and, if
/// there is one, the reason in `why`.
Task<Result<std::shared_ptr<const Namespace>>> look_at(Scan& scan, std::uint32_t nsid,
                                                       std::string& why) {
  const Association& a = scan.association;
  const std::shared_ptr<const Namespace> none;
  Buffer page;
  auto answer = co_await identify(scan, nvme::Cns::identify_namespace, nsid, page);
  if (!answer) co_return std::unexpected(answer.error());
  if (!answer->cqe.status.ok()) {
    why = fmt::format("namespace {} cannot be identified: {}", nsid,
                      nvme::explain(answer->cqe.status, nvme::StatusContext::admin));
    if (!says_gone(answer->cqe.status)) scan.association.unsure_namespaces.push_back(nsid);
    co_return none;
  }
  auto descriptors = co_await read_descriptors(scan, nsid);
  if (!descriptors) co_return std::unexpected(descriptors.error());
  const auto id = std::make_unique<nvme::IdentifyNamespace>(nvme::IdentifyNamespace::decode(page));
  if (!id->active()) co_return none;
  auto ns = make_namespace({.nsid = nsid,
                            .connection_name = a.params().name,
                            .controller = a.info.controller,
                            .nvm_controller = a.info.nvm_controller,
                            .mpsmin = a.info.cap.mpsmin,
                            .id = *id,
                            .descriptors = *descriptors,
                            .read_only = a.params().read_only});
  if (ns) co_return std::move(*ns);
  why = ns.error().message;
  co_return none;
}

Task<Result<void>> scan_one(Scan& scan, std::uint32_t nsid) {
  Association& a = scan.association;
  std::string why;
  auto ns = co_await look_at(scan, nsid, why);
  if (!ns) co_return std::unexpected(ns.error());
  if (!why.empty()) a.refused_namespaces.push_back(std::move(why));
  if (*ns && matches(**ns, a.params().namespace_selector)) a.namespaces.push_back(std::move(*ns));
  co_return Result<void>{};
}

Task<void> scanner(Scan& scan) {
  while (scan.next < scan.nsids.size() && !scan.error) {
    auto ok = co_await scan_one(scan, scan.nsids[scan.next++]);
    if (!ok && !scan.error) scan.error = ok.error();
  }
}

/// What somebody who asked for another namespace may ask for.
std::string describe(std::span<const std::uint32_t> nsids) {
  constexpr std::size_t kNamed = 8;
  if (nsids.empty()) return "this host sees none there";
  return fmt::format("those that this host sees there: {}{}",
                     fmt::join(nsids.first(std::min(nsids.size(), kNamed)), ", "),
                     nsids.size() > kNamed ? ", …" : "");
}

}  // namespace

Task<Result<std::shared_ptr<const Namespace>>> identify_namespace(Association& association,
                                                                  std::uint32_t nsid,
                                                                  Duration timeout,
                                                                  std::string& why) {
  Scan scan{.association = association, .timeout = timeout};
  auto ns = co_await look_at(scan, nsid, why);
  if (ns && std::erase(association.unsure_namespaces, nsid) != 0) {
    co_return fail(fmt::format("the controller cannot tell of namespace {} now", nsid), EAGAIN);
  }
  co_return ns;
}

Task<Result<std::vector<std::uint32_t>>> list_namespaces(Association& association,
                                                         Duration timeout) {
  Scan scan{.association = association, .timeout = timeout};
  if (auto ok = co_await list_all(scan); !ok) co_return std::unexpected(ok.error());
  co_return std::move(scan.nsids);
}

Task<Result<void>> scan_namespaces(Association& association, Duration timeout) {
  Scan scan{.association = association, .timeout = timeout};
  const nvme::NamespaceSelector& selector = association.params().namespace_selector;
  if (auto ok = co_await list_all(scan); !ok) co_return ok;
  const std::string there = describe(scan.nsids);
  if (const auto* nsid = std::get_if<1>(&selector)) {
    std::erase_if(scan.nsids, [nsid](std::uint32_t n) { return n != *nsid; });
  }
  std::vector<Task<void>> scanners;
  scanners.reserve(kScanners);
  for (std::size_t i = 0; i < kScanners; ++i) scanners.push_back(scanner(scan));
  co_await when_all(std::move(scanners));
  if (scan.error) co_return std::unexpected(*scan.error);
  std::ranges::sort(association.namespaces, {}, [](const auto& ns) { return ns->info.nsid; });
  for (const std::string& sentence : association.refused_namespaces) {
    log(LogLevel::warning, fmt::format("{}: {}", association.params().subnqn, sentence));
  }
  if (selector.index() != 0 && association.namespaces.empty()) {
    const bool known = selector.index() == 1 && !association.refused_namespaces.empty();
    co_return fail(known ? association.refused_namespaces.front()
                         : "the controller has no " + describe(selector) + "; " + there,
                   ENOENT);
  }
  co_return Result<void>{};
}

}  // namespace nvmf::host
