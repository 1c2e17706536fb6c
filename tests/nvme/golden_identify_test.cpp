// Recorded Identify data and a discovery log, as nvme-cli 2.3 printed them.
#include <gtest/gtest.h>

#include <span>
#include <vector>

#include "nvme/golden.h"
#include "nvme/json.h"
#include "nvme/json_discovery.h"
#include "nvme/json_identify.h"
#include "nvme/print.h"
#include "nvme/print_discovery.h"
#include "nvme/print_identify.h"

namespace nvmf::nvme {
namespace {

using test::expect_golden;
using test::golden_bytes;

TEST(GoldenIdentify, Controller) {
  const auto bytes = golden_bytes("id-ctrl");
  ASSERT_EQ(bytes.size(), kIdentifyBytes);
  const auto id = IdentifyController::decode(bytes);
  expect_golden("id-ctrl", {print(id), print(id, Detail::human), to_json(id)});
}

TEST(GoldenIdentify, Namespace) {
  const auto bytes = golden_bytes("id-ns");
  ASSERT_EQ(bytes.size(), kIdentifyBytes);
  const auto id = IdentifyNamespace::decode(bytes);
  expect_golden("id-ns", {print(id, 1), print(id, 1, Detail::human), to_json(id)});
}

TEST(GoldenIdentify, NamespaceDescriptors) {
  const auto bytes = golden_bytes("ns-descs");
  ASSERT_EQ(bytes.size(), kIdentifyBytes);
  const auto list = decode_descriptor_list(bytes);
  expect_golden("ns-descs", {print(list, 1), "", to_json(list)});
}

TEST(GoldenIdentify, Discovery) {
  const auto bytes = golden_bytes("discover");
  ASSERT_EQ(bytes.size(), kDiscoveryHeaderBytes + 3 * kDiscoveryEntryBytes);
  const auto header = DiscoveryHeader::decode(bytes);
  ASSERT_EQ(header.numrec, 3u);
  std::vector<DiscoveryEntry> entries;
  for (std::size_t i = 0; i < 3; ++i) {
    entries.push_back(DiscoveryEntry::decode(
        std::span(bytes).subspan(kDiscoveryHeaderBytes + i * kDiscoveryEntryBytes)));
  }
  expect_golden("discover", {print(header, entries), "", to_json(header, entries)});
}

}  // namespace
}  // namespace nvmf::nvme
