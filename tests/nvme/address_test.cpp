#include "nvme/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace nvmf::nvme {
namespace {

using ::testing::HasSubstr;

TEST(Nqn, GoodNames) {
  for (const std::string& nqn : {
           std::string(kDiscoveryNqn),
           std::string("nqn.2024-01.org.example"),
           std::string("nqn.2024-12.org.example:disk/1"),
           std::string("nqn.2014-08.org.nvmexpress:uuid:01234567-89ab-cdef-0123-456789ABCDEF"),
           "nqn.2024-01.org.example:" + std::string(kMaxNqnBytes - 24, 'x'),
       }) {
    const auto result = check_nqn(nqn);
    EXPECT_TRUE(result.has_value()) << result.error().message;
    EXPECT_TRUE(usable_nqn(nqn)) << nqn;
  }
}

struct BadName {
  std::string nqn;
  const char* why;
  bool usable;  // good enough for Linux
};

TEST(Nqn, BadNamesAndWhy) {
  const BadName bad[] = {
      {"", "is empty", false},
      {"nqn.2024-01.org.example:" + std::string(kMaxNqnBytes - 23, 'x'), "longer than 223", false},
      {"nqn.2024-01.org.example:a\nb", "control character", false},
      {"nqn.2024-01.org.example:\xff", "not UTF-8", false},
      {"nqn.2024-01.org.example:a b", "a space", true},
      {"testnqn", "does not begin", true},
      {"nqn.2024.org.example", "year and month", true},
      {"nqn.2024-13.org.example", "year and month", true},
      {"nqn.2024-00.org.example", "year and month", true},
      {"nqn.2024-01.", "no domain", true},
      {"nqn.2024-01.:x", "no domain", true},
      {"nqn.2014-08.org.nvmexpress:uuid:0123", "no UUID", true},
  };
  for (const BadName& name : bad) {
    const auto result = check_nqn(name.nqn);
    ASSERT_FALSE(result.has_value()) << name.nqn;
    EXPECT_THAT(result.error().message, HasSubstr(name.why));
    EXPECT_EQ(usable_nqn(name.nqn), name.usable) << name.nqn;
  }
}

TEST(Uuid, TextBothWays) {
  const std::string text = "01234567-89ab-cdef-0123-456789abcdef";
  const auto uuid = parse_uuid(text);
  ASSERT_TRUE(uuid.has_value());
  EXPECT_EQ((*uuid)[0], std::byte{0x01});
  EXPECT_EQ((*uuid)[15], std::byte{0xef});
  EXPECT_EQ(format_uuid(*uuid), text);
  EXPECT_EQ(parse_uuid("urn:uuid:01234567-89AB-CDEF-0123-456789ABCDEF").value(), *uuid);
  EXPECT_EQ(uuid_nqn(*uuid), "nqn.2014-08.org.nvmexpress:uuid:" + text);
  EXPECT_EQ(uuid_of_nqn(uuid_nqn(*uuid)), *uuid);
  EXPECT_FALSE(uuid_of_nqn("nqn.2024-01.org.example:" + text).has_value());
}

TEST(Uuid, BadText) {
  for (const char* bad :
       {"", "01234567", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdeg",
        "01234567-89ab-cdef-0123-456789abcdef0", "0123456-789ab-cdef-0123-456789abcdef"}) {
    EXPECT_FALSE(parse_uuid(bad).has_value()) << bad;
  }
}

TEST(Uuid, RandomOnesAreVersion4AndDiffer) {
  const Uuid a = random_uuid();
  const Uuid b = random_uuid();
  EXPECT_NE(a, b);
  EXPECT_EQ(format_uuid(a)[14], '4');
  EXPECT_THAT(std::string("89ab"), HasSubstr(std::string(1, format_uuid(a)[19])));
}

TEST(Hex, BothWays) {
  const std::array bytes = {std::byte{0x00}, std::byte{0xaf}};
  EXPECT_EQ(format_hex(bytes), "00af");
  EXPECT_EQ(parse_hex("00AF"), (std::vector<std::byte>{bytes.begin(), bytes.end()}));
  EXPECT_FALSE(parse_hex("0").has_value());
  EXPECT_FALSE(parse_hex("0g").has_value());
}

struct GoodUri {
  const char* text;
  const char* host;
  std::uint16_t port;
  const char* subnqn;
  std::size_t selector;  // index in NamespaceSelector
  const char* canonical;
};

constexpr GoodUri kGoodUris[] = {
    {"nvme+tcp://192.0.2.1:4421/nqn.2024-01.org.example:d", "192.0.2.1", 4421,
     "nqn.2024-01.org.example:d", 0, "nvme+tcp://192.0.2.1:4421/nqn.2024-01.org.example:d"},
    {"NVMe+TCP://Storage.example/testnqn/7", "Storage.example", 4420, "testnqn", 1,
     "nvme+tcp://Storage.example:4420/testnqn/7"},
    {"nvme+tcp://[2001:db8::1]/n", "2001:db8::1", 4420, "n", 0, "nvme+tcp://[2001:db8::1]:4420/n"},
    {"nvme+tcp://[fe80::1%25eth0]:1/n", "fe80::1%eth0", 1, "n", 0,
     "nvme+tcp://[fe80::1%25eth0]:1/n"},
    {"nvme+tcp://[fe80::1%eth0]:1/n", "fe80::1%eth0", 1, "n", 0, "nvme+tcp://[fe80::1%25eth0]:1/n"},
    {"nvme+tcp://h", "h", 8009, "nqn.2014-08.org.nvmexpress.discovery", 0,
     "nvme+tcp://h:8009/nqn.2014-08.org.nvmexpress.discovery"},
    {"nvme+tcp://h/", "h", 8009, "nqn.2014-08.org.nvmexpress.discovery", 0,
     "nvme+tcp://h:8009/nqn.2014-08.org.nvmexpress.discovery"},
    {"nvme+tcp://h:4420/nqn.2014-08.org.nvmexpress.discovery", "h", 4420,
     "nqn.2014-08.org.nvmexpress.discovery", 0,
     "nvme+tcp://h:4420/nqn.2014-08.org.nvmexpress.discovery"},
    {"nvme+tcp://h/a%2Fb%20c%23/0xfffffffe", "h", 4420, "a/b c#", 1,
     "nvme+tcp://h:4420/a%2Fb%20c%23/4294967294"},
    {"nvme+tcp://h/n/urn:uuid:01234567-89ab-cdef-0123-456789abcdef", "h", 4420, "n", 2,
     "nvme+tcp://h:4420/n/urn:uuid:01234567-89ab-cdef-0123-456789abcdef"},
    {"nvme+tcp://h/n/01234567-89ab-cdef-0123-456789abcdef", "h", 4420, "n", 2,
     "nvme+tcp://h:4420/n/urn:uuid:01234567-89ab-cdef-0123-456789abcdef"},
    {"nvme+tcp://h/n/0123456789abcdef0123456789ABCDEF", "h", 4420, "n", 3,
     "nvme+tcp://h:4420/n/0123456789abcdef0123456789abcdef"},
    {"nvme+tcp://h/n/0123456789abcdef", "h", 4420, "n", 4, "nvme+tcp://h:4420/n/0123456789abcdef"},
};

TEST(TargetUri, GoodOnes) {
  for (const GoodUri& good : kGoodUris) {
    const auto uri = TargetUri::parse(good.text);
    ASSERT_TRUE(uri.has_value()) << uri.error().message;
    EXPECT_EQ(uri->host, good.host) << good.text;
    EXPECT_EQ(uri->port, good.port) << good.text;
    EXPECT_EQ(uri->subnqn, good.subnqn) << good.text;
    EXPECT_EQ(uri->namespace_selector.index(), good.selector) << good.text;
    EXPECT_EQ(uri->to_string(), good.canonical);
    EXPECT_EQ(TargetUri::parse(uri->to_string()).value(), *uri) << good.text;
  }
}

struct BadUri {
  std::string text;
  const char* why;
};

TEST(TargetUri, BadOnesAndWhy) {
  const BadUri bad[] = {
      {"", "no nvme+tcp://"},
      {"192.0.2.1:4420", "no nvme+tcp://"},
      {"nvme+rdma://h/n", "of scheme \"nvme+rdma\""},
      {"nvme+tcp:///n", "names no host"},
      {"nvme+tcp://:4420/n", "names no host"},
      {"nvme+tcp://a b/n", "host name"},
      {"nvme+tcp://" + std::string(256, 'h') + "/n", "longer than 255"},
      {"nvme+tcp://h%zz/n", "broken % escape in its host"},
      {"nvme+tcp://user@h/n", "names a user"},
      {"nvme+tcp://fe80::1/n", "without brackets"},
      {"nvme+tcp://[fe80::1/n", "[ without ]"},
      {"nvme+tcp://[hello]/n", "no IPv6 address"},
      {"nvme+tcp://[fe80::1%]/n", "no IPv6 address"},
      {"nvme+tcp://[fe80::1]x/n", "other than a port"},
      {"nvme+tcp://h:/n", "no port after"},
      {"nvme+tcp://h:0/n", "port 0"},
      {"nvme+tcp://h:65536/n", "not 0 to 65535"},
      {"nvme+tcp://h:-1/n", "not 0 to 65535"},
      {"nvme+tcp://h:0x10/n", "not 0 to 65535"},
      {"nvme+tcp://h:99999999999999999999/n", "not 0 to 65535"},
      {"nvme+tcp://h/n?x=1", "? or #"},
      {"nvme+tcp://h//1", "empty NQN"},
      {"nvme+tcp://h/a%2", "broken % escape in its NQN"},
      {"nvme+tcp://h/a%00", "broken % escape in its NQN"},
      {"nvme+tcp://h/a%0a", "control character"},
      {"nvme+tcp://h/" + std::string(224, 'n'), "longer than 223"},
      {"nvme+tcp://h/n/", "where a namespace"},
      {"nvme+tcp://h/n/0", "go from 1"},
      {"nvme+tcp://h/n/4294967295", "go from 1"},
      {"nvme+tcp://h/n/99999999999999999999999", "no NSID"},
      {"nvme+tcp://h/n/0x", "no NSID"},
      {"nvme+tcp://h/n/abc", "no NSID"},
      {"nvme+tcp://h/n/1/2", "no NSID"},
      {"nvme+tcp://h/n/urn:uuid:1", "no UUID"},
  };
  for (const BadUri& uri : bad) {
    const auto result = TargetUri::parse(uri.text);
    ASSERT_FALSE(result.has_value()) << uri.text;
    EXPECT_THAT(result.error().message, HasSubstr(uri.why)) << uri.text;
  }
}

TEST(TargetUri, LooksLikeOne) {
  EXPECT_TRUE(looks_like_uri("nvme+tcp://h"));
  EXPECT_TRUE(looks_like_uri("NVME+rdma://h"));
  EXPECT_FALSE(looks_like_uri("nvmf0"));
  EXPECT_FALSE(looks_like_uri("/dev/nvme0"));
}

TEST(HostPort, BothWays) {
  EXPECT_EQ(HostPort::parse("127.0.0.1:0").value(), (HostPort{.host = "127.0.0.1", .port = 0}));
  EXPECT_EQ(HostPort::parse("[::1]:8009").value().to_string(), "[::1]:8009");
  EXPECT_EQ(HostPort::parse("h", 4420).value().to_string(), "h:4420");
  EXPECT_THAT(HostPort::parse("h").error().message, HasSubstr("has no port"));
  EXPECT_THAT(HostPort::parse("::1:8009").error().message, HasSubstr("without brackets"));
  EXPECT_FALSE(HostPort::parse("").has_value());
}

}  // namespace
}  // namespace nvmf::nvme
