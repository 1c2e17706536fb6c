// Sizes, namespace specifications, limits and the configuration file.
#include "controller/config.h"

#include <gtest/gtest.h>

#include <string>

#include "controller/nbd_link.h"

namespace nvmf::controller {
namespace {

TEST(Config, ReadsSizes) {
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("64K"), 65536u);
  EXPECT_EQ(parse_size("3m"), 3u << 20);
  EXPECT_EQ(parse_size("1G"), 1u << 30);
  EXPECT_EQ(parse_size("2T"), std::uint64_t{2} << 40);
  EXPECT_EQ(parse_size("0"), 0u);
  for (const char* text : {"", "K", "12Q", "-1", "+1", "1.5G", "1KB", "1 K", "0x10",
                           "99999999999999999999", "16777216T"}) {
    const auto size = parse_size(text);
    ASSERT_FALSE(size) << text;
    EXPECT_NE(size.error().message.find("size"), std::string::npos);
  }
}

TEST(Config, ReadsNamespaces) {
  const auto memory = NamespaceConfig::parse("memory:1G");
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->kind, NamespaceConfig::Kind::memory);
  EXPECT_EQ(memory->size_bytes, 1u << 30);
  EXPECT_EQ(memory->block_bytes, 512u);
  EXPECT_EQ(NamespaceConfig::parse("memory:1M,block=4096")->block_bytes, 4096u);
  const auto file = NamespaceConfig::parse("file:/a,b=c,block=4096");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->path, "/a,b=c");
  EXPECT_EQ(file->block_bytes, 4096u);
  EXPECT_FALSE(file->read_only);
  const auto read_only = NamespaceConfig::parse("file:/readonly,readonly,block=4096");
  ASSERT_TRUE(read_only);
  EXPECT_TRUE(read_only->read_only);
  EXPECT_EQ(read_only->path, "/readonly");
  for (const char* text :
       {"", "memory", "memory:", "memory:0", "memory:100", "memory:512,block=4096",
        "memory:1M,block=0", "memory:1M,block=1000", "memory:1M,block=", "memory:1M,colour=red",
        "memory:65T", "memory:1M,anagrp=0", "memory:1M,anagrp=129", "file:", "floppy:A", "1G"}) {
    const auto refused = NamespaceConfig::parse(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_FALSE(refused.error().message.empty());
  }
}

TEST(Config, ReadsNbdNamespaces) {
  for (const char* uri : {"nbd://host/", "nbd://[::1]:10809/a,b", "nbds://user@host:1/x",
                          "nbd+unix:///e?socket=/a,b=c", "nbds+unix://me@/?socket=s&tls-psk-file=k",
                          "nbd+vsock://2:10809/"}) {
    const auto plain = NamespaceConfig::parse(std::string("nbd:") + uri);
    ASSERT_TRUE(plain) << uri << ": " << plain.error().message;
    EXPECT_EQ(plain->kind, NamespaceConfig::Kind::nbd);
    EXPECT_EQ(plain->path, uri);
    EXPECT_FALSE(plain->block_given);
    EXPECT_EQ(NamespaceConfig::parse(uri).value(), *plain) << "a URI alone is good, too";
    const auto more =
        NamespaceConfig::parse(std::string("nbd:") + uri + ",timeout=30,unflushed=fail,block=4096");
    ASSERT_TRUE(more) << uri;
    EXPECT_EQ(more->path, uri);
    EXPECT_EQ(more->timeout_seconds, 30u);
    EXPECT_TRUE(more->fail_unflushed);
    EXPECT_TRUE(more->block_given);
  }
  for (const char* text :
       {"nbd:", "nbd", "nbd:http://host/", "nbd://[::1/", "nbd://host:0/", "nbd://host:65536/",
        "nbd://host:1x/", "nbd://host/%zz", "nbd://host/%00", "nbd://host/%4", "nbd+unix:///e",
        "nbd://h/,timeout=0", "nbd://h/,timeout=3601", "nbd://h/,unflushed=lose",
        "nbd://h/,cache=volatile", "nbd+tcp://host/"}) {
    const auto refused = NamespaceConfig::parse(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_FALSE(refused.error().message.empty());
  }
  EXPECT_EQ(NamespaceConfig::parse("file:/a,timeout=5")->path, "/a,timeout=5");
}

TEST(Config, TakesNbdUrisApart) {
  const auto uri = NbdUri::parse("nbds://me@[fe80::1]:4711/a%20b%2F?x=y/z");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->host, "fe80::1");
  EXPECT_EQ(uri->port, 4711);
  EXPECT_EQ(uri->export_name, "a b/");
  EXPECT_TRUE(uri->tls);
  const auto shortest = NbdUri::parse("nbd://");
  ASSERT_TRUE(shortest);
  EXPECT_EQ(shortest->host, "localhost");
  EXPECT_EQ(shortest->port, 10809);
  EXPECT_TRUE(NbdUri::parse("nbd+unix://host/e?socket=s")->host.empty());
}

TEST(Config, ChecksLimits) {
  TargetConfig good;
  good.subsystems.push_back({"nqn.2026-01.org.example:a", {}, {}, {}});
  EXPECT_TRUE(check_config(good));
  std::vector<TargetConfig> wrong(9, good);
  wrong[0].subsystems[0].nqn = "not-an-nqn";
  wrong[1].subsystems.push_back(good.subsystems[0]);
  wrong[2].subsystems[0].nqn = nvme::kDiscoveryNqn;
  wrong[3].max_queues = 0;
  wrong[4].max_queues = kIoQueuesMax + 1;
  wrong[5].queue_entries = 1;
  wrong[6].in_capsule_bytes = 100;
  wrong[7].in_capsule_bytes = 128 * 1024;
  wrong[8].subsystems[0].serial = std::string(21, 'x');
  for (std::size_t i = 0; i < wrong.size(); ++i) EXPECT_FALSE(check_config(wrong[i])) << i;
  wrong[0] = good;
  wrong[0].subsystems[0].hosts = {""};
  EXPECT_FALSE(check_config(wrong[0]));
  wrong[1] = good;
  wrong[1].subsystems[0].namespaces.emplace_back().ana_group = 2;  // without groups
  EXPECT_FALSE(check_config(wrong[1]));
  wrong[1].subsystems[0].ana_groups = 2;
  EXPECT_TRUE(check_config(wrong[1]));
  wrong[2] = good;
  wrong[2].referrals.resize(kReferralsMax + 1, {"192.0.2.1", 8009});
  EXPECT_FALSE(check_config(wrong[2]));
}

TEST(Config, ReadsAFile) {
  const auto file = parse_config(R"({
    "listen": ["127.0.0.1:4420", "[::1]:0"],
    "referrals": ["tcp://192.0.2.1:4420"],
    "max_queues": 4, "queue_size": 32, "in_capsule": 0, "cqt": 50,
    "subsystems": [
      {"nqn": "nqn.2026-01.org.example:a", "serial": "S1", "ana_groups": 2,
       "hosts": ["nqn.2026-01.org.example:h"],
       "namespaces": ["memory:1M", "file:/tmp/x,block=4096,anagrp=2"]},
      {"nqn": "nqn.2026-01.org.example:b"}]})");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->listen, (std::vector<nvme::HostPort>{{"127.0.0.1", 4420}, {"::1", 0}}));
  EXPECT_EQ(file->target.max_queues, 4u);
  EXPECT_EQ(file->target.queue_entries, 32u);
  EXPECT_EQ(file->target.in_capsule_bytes, 0u);
  EXPECT_EQ(file->target.cqt_ms, 50);
  ASSERT_EQ(file->target.subsystems.size(), 2u);
  EXPECT_EQ(file->target.subsystems[0].serial, "S1");
  EXPECT_EQ(file->target.subsystems[0].namespaces.size(), 2u);
  EXPECT_EQ(file->target.subsystems[0].hosts.size(), 1u);
  EXPECT_EQ(file->target.subsystems[0].ana_groups, 2u);
  EXPECT_EQ(file->target.subsystems[0].namespaces[1].ana_group, 2u);
  EXPECT_EQ(file->target.referrals, (std::vector<nvme::HostPort>{{"192.0.2.1", 4420}}));
}

TEST(Config, RefusesAWrongFile) {
  for (const char* text :
       {"", "[]", "{", R"({"listen": "x"})", R"({"listen": ["nowhere"]})", R"({"lisen": []})",
        R"({"max_queues": -1})", R"({"max_queues": "4"})", R"({"cqt": 70000})",
        R"({"subsystems": {}})", R"({"subsystems": [1]})", R"({"subsystems": [{"nqn": 1}]})",
        R"({"subsystems": [{"namespaces": ["x"]}]})", R"({"subsystems": [{"hosts": "x"}]})",
        R"({"subsystems": [{"naqn": "x"}]})", R"({"referrals": ["tcp://host:1"]})",
        R"({"subsystems": [{"nqn": "x", "ana_groups": 129}]})"}) {
    const auto refused = parse_config(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_FALSE(refused.error().message.empty());
  }
}

}  // namespace
}  // namespace nvmf::controller
