// Identify data, printed by us and by Debian's nvme-cli: the same bytes, the same words.
#include <gtest/gtest.h>

#include <string>

#include "nvme/bytes.h"
#include "nvme/identify.h"
#include "nvme/identify_lists.h"
#include "nvme/json.h"
#include "nvme/json_identify.h"
#include "nvme/nvme_cli.h"
#include "nvme/print.h"
#include "nvme/print_identify.h"

namespace nvmf::nvme {
namespace {

using test::random_bytes;

class NvmeCliIdentify : public test::NvmeCli {};

// Random fields, but text that is text: nvme-cli writes other bytes as they are.
std::vector<std::byte> controller_bytes(std::uint32_t seed) {
  auto id = IdentifyController::decode(random_bytes(4096, seed));
  id.sn = "SN" + std::to_string(seed);
  id.mn = "A model with forty characters in its nam";
  id.fr = "1.2";
  id.subnqn = seed % 2 == 0 ? "" : "nqn.2024-01.org.example:disk";
  id.npss = static_cast<std::uint8_t>(seed % 32);
  return test::encoded<4096>(id);
}

std::vector<std::byte> namespace_bytes(std::uint32_t seed) {
  std::vector<std::byte> bytes = random_bytes(4096, seed);
  auto id = IdentifyNamespace::decode(bytes);
  id.nlbaf = static_cast<std::uint8_t>(seed * 7 % 64);
  id.nulbaf = static_cast<std::uint8_t>(seed % 5);
  if (id.nlbaf + id.nulbaf > 63) id.nulbaf = 0;
  // 2.3 heeds bits 6:5 unasked, so that no format is in use where there are not that many.
  if (id.nlbaf + id.nulbaf < 16) id.flbas = static_cast<std::uint8_t>(id.flbas & 0x9f);
  bytes[25] = static_cast<std::byte>(id.nlbaf);
  bytes[26] = static_cast<std::byte>(id.flbas);
  bytes[82] = static_cast<std::byte>(id.nulbaf);
  return bytes;
}

TEST_F(NvmeCliIdentify, Controller) {
  for (std::uint32_t seed = 0; seed < 16; ++seed) {
    const auto bytes = controller_bytes(seed);
    const auto id = IdentifyController::decode(bytes);
    EXPECT_EQ(print(id), show("id-ctrl /dev/null", bytes)) << seed;
    EXPECT_EQ(print(id, Detail::human), show("id-ctrl /dev/null -H", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(id)), normalized(show("id-ctrl /dev/null -o json", bytes)))
        << seed;
  }
}

TEST_F(NvmeCliIdentify, VendorSpecific) {
  const auto controller = controller_bytes(1);
  const auto id = IdentifyController::decode(controller);
  EXPECT_EQ(print(id, Detail::human) + print_vendor_specific(id),
            show("id-ctrl /dev/null -v -H", controller));
  const auto bytes = namespace_bytes(1);
  const auto ns = IdentifyNamespace::decode(bytes);
  std::string expected = show("id-ns /dev/null -n 5 -v", bytes);
  ASSERT_GT(expected.size(), 3u);
  expected.erase(expected.size() - 3, 1);  // 2.3 shows a character too many in a short last line
  EXPECT_EQ(print(ns, 5) + print_vendor_specific(ns), expected);
}

// Random bytes have both values of a bit, but seldom those of a whole field.
TEST_F(NvmeCliIdentify, EveryKindOfValueOfAControllersFields) {
  for (unsigned value = 0; value < 256; value += 5) {
    std::vector<std::byte> bytes(4096, static_cast<std::byte>(value));
    std::fill_n(bytes.begin() + 4, 68, std::byte{' '});
    std::fill_n(bytes.begin() + 768, 256, std::byte{0});
    bytes[263] = std::byte{0};
    const auto id = IdentifyController::decode(bytes);
    EXPECT_EQ(print(id, Detail::human), show("id-ctrl /dev/null -H", bytes)) << value;
  }
}

TEST_F(NvmeCliIdentify, Namespace) {
  for (std::uint32_t seed = 0; seed < 16; ++seed) {
    const auto bytes = namespace_bytes(seed);
    auto id = IdentifyNamespace::decode(bytes);
    EXPECT_EQ(print(id, 5), show("id-ns /dev/null -n 5", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(id)), normalized(show("id-ns /dev/null -n 5 -o json", bytes)))
        << seed;
    // From 2^31 on nvme-cli overflows the int in which it holds the bytes of a block.
    for (LbaFormat& format : id.lbaf) format.lbads = static_cast<std::uint8_t>(format.lbads % 31);
    EXPECT_EQ(print(id, 5, Detail::human), show("id-ns /dev/null -n 5 -H", test::encoded<4096>(id)))
        << seed;
  }
}

TEST_F(NvmeCliIdentify, EveryKindOfValueOfANamespacesFields) {
  for (unsigned value = 0; value < 256; value += 3) {
    std::vector<std::byte> bytes(4096);
    std::fill_n(bytes.begin() + 24, 80, static_cast<std::byte>(value));
    bytes[25] = bytes[82] = std::byte{0};
    bytes[26] &= std::byte{0x9f};
    const auto id = IdentifyNamespace::decode(bytes);
    EXPECT_EQ(print(id, 5, Detail::human), show("id-ns /dev/null -n 5 -H", bytes)) << value;
  }
}

TEST_F(NvmeCliIdentify, IndependentNamespace) {
  for (unsigned value = 0; value < 256; value += 3) {
    const std::vector<std::byte> bytes(4096, static_cast<std::byte>(value));
    const auto id = IdentifyIndependentNamespace::decode(bytes);
    const std::string command = "cmdset-ind-id-ns /dev/null -n 5 ";
    EXPECT_EQ(print(id, 5), show(command, bytes)) << value;
    EXPECT_EQ(print(id, 5, Detail::human), show(command + "-H", bytes)) << value;
    EXPECT_EQ(normalized(to_json(id)), normalized(show(command + "-o json", bytes))) << value;
  }
}

TEST_F(NvmeCliIdentify, NvmNamespace) {
  for (std::uint32_t seed = 0; seed < 16; ++seed) {
    auto bytes = namespace_bytes(seed);  // nvme-cli gets them for either command
    // Of FLBAS 2.3 heeds bits 3:0 only here, and of PIC it shows bit 2 as 0 whatever it is.
    bytes[26] &= std::byte{0x1f};
    bytes[8] &= std::byte{0xfb};
    const auto ns = IdentifyNamespace::decode(bytes);
    const auto id = IdentifyNvmNamespace::decode(bytes);
    const std::string command = "nvm-id-ns /dev/null -n 5 ";
    EXPECT_EQ(print(id, ns, 5), show(command, bytes)) << seed;
    EXPECT_EQ(print(id, ns, 5, Detail::human), show(command + "-v", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(id, ns)), normalized(show(command + "-o json", bytes))) << seed;
  }
}

TEST_F(NvmeCliIdentify, NvmController) {
  for (std::uint32_t seed = 0; seed < 8; ++seed) {
    const auto bytes = random_bytes(4096, seed);
    const auto id = IdentifyNvmController::decode(bytes);
    EXPECT_EQ(print(id), show("nvm-id-ctrl /dev/null", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(id)), normalized(show("nvm-id-ctrl /dev/null -o json", bytes)))
        << seed;
  }
}

TEST_F(NvmeCliIdentify, NamespaceList) {
  for (const std::size_t count : {0u, 1u, 7u, 1023u, 1024u}) {
    std::vector<std::uint32_t> nsids(count);
    for (std::size_t i = 0; i < count; ++i) nsids[i] = static_cast<std::uint32_t>(4194303 * i + 1);
    std::array<std::byte, kIdentifyBytes> bytes{};
    encode_namespace_list(nsids, bytes);
    EXPECT_EQ(print_namespace_list(nsids), show("list-ns /dev/null", bytes)) << count;
    EXPECT_EQ(normalized(namespace_list_to_json(nsids)),
              normalized(show("list-ns /dev/null -o json", bytes)))
        << count;
  }
}

TEST_F(NvmeCliIdentify, ControllersAndEnduranceGroups) {
  for (const unsigned count : {0u, 1u, 300u, 2047u}) {
    auto bytes = random_bytes(4096, count);
    bytes[0] = static_cast<std::byte>(count);
    bytes[1] = static_cast<std::byte>(count >> 8);
    const auto controllers = ControllerList::decode(bytes);
    const auto groups = EnduranceGroupList::decode(bytes);
    EXPECT_EQ(print(controllers), show("list-ctrl /dev/null", bytes)) << count;
    EXPECT_EQ(normalized(to_json(controllers)),
              normalized(show("list-ctrl /dev/null -o json", bytes)));
    EXPECT_EQ(print(groups), show("list-endgrp /dev/null", bytes)) << count;
    EXPECT_EQ(normalized(to_json(groups)),
              normalized(show("list-endgrp /dev/null -o json", bytes)));
  }
}

void add_descriptor(std::vector<std::byte>& page, std::uint8_t nidt, std::size_t nidl,
                    std::uint32_t seed) {
  page.insert(page.end(), {static_cast<std::byte>(nidt), static_cast<std::byte>(nidl), {}, {}});
  const auto nid = random_bytes(nidl, seed);
  page.insert(page.end(), nid.begin(), nid.end());
}

TEST_F(NvmeCliIdentify, NamespaceDescriptors) {
  constexpr std::array<std::size_t, 6> kLengths = {9, 8, 16, 16, 200, 3};
  constexpr std::array<std::uint8_t, 6> kTypes = {0, 1, 2, 3, 5, 255};  // some of them unknown
  for (std::uint32_t seed = 0; seed < 24; ++seed) {
    std::vector<std::byte> bytes;
    for (std::uint32_t i = 0; i < seed; ++i) {
      const std::uint32_t kind = (seed * 5 + i * i) % 6;
      add_descriptor(bytes, kTypes[kind], kLengths[kind], seed + i);
    }
    add_descriptor(bytes, kNidtCsi, 1, seed);  // last: 2.3 loses its place after it
    bytes.resize(4096);
    const auto list = decode_descriptor_list(bytes);
    EXPECT_EQ(print(list, 3), show("ns-descs /dev/null -n 3", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(list)), normalized(show("ns-descs /dev/null -n 3 -o json", bytes)))
        << seed;
  }
}

TEST_F(NvmeCliIdentify, CommandSets) {
  auto bytes = random_bytes(4096, 1);
  EXPECT_EQ(print_command_sets(decode_command_sets(bytes)), show("id-iocs /dev/null", bytes));
  std::fill_n(bytes.begin() + 80, 8, std::byte{0});
  EXPECT_EQ(print_command_sets(decode_command_sets(bytes)), show("id-iocs /dev/null", bytes));
}

TEST_F(NvmeCliIdentify, NvmSets) {
  for (const unsigned count : {0u, 1u, 31u}) {
    auto bytes = random_bytes(4096, count);
    bytes[0] = static_cast<std::byte>(count);
    // In its text 2.3 shows ENDGID as the identifier of the set.
    for (std::size_t at = 128; at < bytes.size(); at += 128) {
      bytes[at] = bytes[at + 2];
      bytes[at + 1] = bytes[at + 3];
    }
    const auto list = NvmSetList::decode(bytes);
    EXPECT_EQ(print(list, 2), show("id-nvmset /dev/null -i 2", bytes)) << count;
    EXPECT_EQ(normalized(to_json(list)), normalized(show("id-nvmset /dev/null -o json", bytes)));
  }
}

TEST_F(NvmeCliIdentify, PrimaryController) {
  for (std::uint32_t seed = 0; seed < 16; ++seed) {
    const auto bytes = random_bytes(4096, seed);
    const auto caps = PrimaryControllerCapabilities::decode(bytes);
    const std::string command = "primary-ctrl-caps /dev/null ";
    EXPECT_EQ(print(caps), show(command, bytes)) << seed;
    EXPECT_EQ(print(caps, Detail::human), show(command + "-H", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(caps)), normalized(show(command + "-o json", bytes))) << seed;
  }
}

TEST_F(NvmeCliIdentify, SecondaryControllers) {
  for (const unsigned count : {0u, 1u, 127u}) {
    auto bytes = random_bytes(4096, count);
    bytes[0] = static_cast<std::byte>(count);
    const auto list = SecondaryControllerList::decode(bytes);
    EXPECT_EQ(print(list), show("list-secondary /dev/null", bytes)) << count;
    EXPECT_EQ(normalized(to_json(list)),
              normalized(show("list-secondary /dev/null -o json", bytes)));
  }
}

TEST_F(NvmeCliIdentify, NamespaceGranularities) {
  for (const unsigned last : {0u, 1u, 15u}) {
    auto bytes = random_bytes(4096, last);
    bytes[4] = static_cast<std::byte>(last);
    const auto list = NamespaceGranularityList::decode(bytes);
    EXPECT_EQ(print(list), show("id-ns-granularity /dev/null", bytes)) << last;
    EXPECT_EQ(normalized(to_json(list)),
              normalized(show("id-ns-granularity /dev/null -o json", bytes)));
  }
}

TEST_F(NvmeCliIdentify, Uuids) {
  for (const std::size_t count : {0u, 1u, 5u, 127u}) {
    auto bytes = random_bytes(4096, static_cast<std::uint32_t>(count));
    std::fill(bytes.begin() + 32 + 32 * static_cast<long>(count), bytes.end(), std::byte{0});
    if (count > 1) std::fill_n(bytes.begin() + 80, 16, std::byte{0xff});
    auto list = UuidList::decode(bytes);
    EXPECT_EQ(list.entries.size(), count);
    EXPECT_EQ(print(list), show("id-uuid /dev/null", bytes)) << count;
    EXPECT_EQ(print(list, Detail::human), show("id-uuid /dev/null -H", bytes)) << count;
    // In its JSON 2.3 leaves out the first.
    if (!list.entries.empty()) list.entries.erase(list.entries.begin());
    EXPECT_EQ(normalized(to_json(list)), normalized(show("id-uuid /dev/null -o json", bytes)));
  }
}

TEST_F(NvmeCliIdentify, Domains) {
  for (const unsigned count : {0u, 1u, 31u}) {
    auto bytes = random_bytes(4096, count);
    bytes[0] = static_cast<std::byte>(count);
    const auto list = DomainList::decode(bytes);
    EXPECT_EQ(print(list), show("id-domain /dev/null", bytes)) << count;
    // 2.3 writes two lines of text before its document.
    const std::string json = show("id-domain /dev/null -o json", bytes);
    EXPECT_EQ(normalized(to_json(list)), normalized(json.substr(json.find('{'))));
  }
}

}  // namespace
}  // namespace nvmf::nvme
