// From parameters to live queues, and every way in which that fails: with a sentence, in bounded
// time, and with nothing left open.

#include <gmock/gmock.h>

#include "host/fixture.h"

namespace nvmf::test {
namespace {

using nvme::StatusCode;
using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using transport::ControllerCommand;

class BringUp : public HostTest {
 protected:
  BringUp() { target.add_namespace(1, 2048); }

  static bool is_connect(const ControllerCommand& c, std::uint16_t qid) {
    return c.sqe.is_fabrics() && c.sqe.fabrics_type() == nvme::FabricsType::connect &&
           nvme::ConnectCommand::from_sqe(c.sqe).qid == qid;
  }
  static bool is_admin(const FakeTarget::Connection& at, const ControllerCommand& c,
                       nvme::AdminOpcode opcode) {
    return at.qid == 0 && !c.sqe.is_fabrics() && c.sqe.opcode == static_cast<std::uint8_t>(opcode);
  }
  /// Answers a Connect of `qid` with a status.
  void refuse_connect(std::uint16_t qid, StatusCode code, std::uint64_t result = 0) {
    target.intercept = [=](FakeTarget::Connection& at, ControllerCommand& c) {
      if (!is_connect(c, qid)) return false;
      at.respond(c, {code, true}, result);
      return true;
    };
  }
};

TEST_F(BringUp, MakesLiveQueuesAndNamespaces) {
  target.add_namespace(5, 100, 12);
  ASSERT_TRUE(go_live(2)) << outcome.ended->message;
  EXPECT_EQ(target.open_connections(), 3u);
  EXPECT_EQ(subsystem->reactors(), 2u);
  ASSERT_EQ(subsystem->namespaces().size(), 2u);
  const host::BlockInfo& one = subsystem->device(1, 1)->info();
  EXPECT_EQ(one.name, "nvmf0n1");
  EXPECT_EQ(one.size_bytes, 2048u * 512);
  EXPECT_EQ(one.block_bytes, 512u);
  EXPECT_TRUE(one.flush && one.write_zeroes && one.deallocate);
  EXPECT_EQ(subsystem->device(0, 5)->info().block_bytes, 4096u);
  EXPECT_EQ(subsystem->device(0, 2), nullptr);
  EXPECT_EQ(subsystem->device(2, 1), nullptr);
  EXPECT_EQ(subsystem->info()->cntlid, 7);
  EXPECT_EQ(subsystem->info()->katt_ms, 5000u);
  EXPECT_EQ(target.connection(0)->event_requests.size(), 4u);
}

TEST_F(BringUp, ConnectCarriesWhoWeAre) {
  params.disable_sqflow = true;
  target.flow_control_off = true;
  ASSERT_TRUE(go_live());
  EXPECT_FALSE(subsystem->info()->sq_flow_control);
  const SeenCommand& first = target.seen.front();
  const auto command = nvme::ConnectCommand::from_sqe(first.sqe);
  EXPECT_EQ(command.queue_entries, 32u);
  EXPECT_EQ(command.kato_ms, 5000u);
  EXPECT_EQ(command.cattr, nvme::kCattrDisableSqFlowControl);
  EXPECT_EQ(first.sqe.sgl.type, nvme::kSglDataBlockOffset);
  const auto data = nvme::ConnectData::decode(first.data);
  ASSERT_TRUE(data);
  EXPECT_EQ(data->cntlid, nvme::kCntlidDynamic);
  EXPECT_EQ(data->subnqn, params.subnqn);
  EXPECT_EQ(data->hostnqn, params.hostnqn);
  EXPECT_EQ(data->hostid, params.hostid);
  for (const SeenCommand& s : target.seen) {
    if (s.qid == 0 || !s.sqe.is_fabrics()) continue;
    EXPECT_EQ(nvme::ConnectData::decode(s.data)->cntlid, 7);
    EXPECT_EQ(nvme::ConnectCommand::from_sqe(s.sqe).kato_ms, 0u);
  }
}

TEST_F(BringUp, UsesFewerQueuesWhenFewerAreGranted) {
  params.nr_io_queues = 4;
  target.queues_granted = 2;
  ASSERT_TRUE(go_live(4));
  EXPECT_EQ(target.open_connections(), 3u);
  EXPECT_EQ(subsystem->reactors(), 2u);
  EXPECT_THAT(logged(), testing::Contains(HasSubstr("grants 2 of the 4 I/O queues")));
}

TEST_F(BringUp, QueuesAreNoLargerThanMqesAndMaxcmd) {
  params.queue_size = 128;
  target.cap.mqes = 63;
  ASSERT_TRUE(go_live());
  EXPECT_EQ(subsystem->info()->io_queue_entries, 64u);
}

TEST_F(BringUp, SeveralQueuesShareAReactor) {
  params.nr_io_queues = 3;
  ASSERT_TRUE(go_live(2));
  EXPECT_EQ(subsystem->reactors(), 2u);
  EXPECT_EQ(target.open_connections(), 4u);
}

TEST_F(BringUp, AdminQueueAloneWithoutIoQueues) {
  params.nr_io_queues = 0;
  ASSERT_TRUE(go_live());
  EXPECT_EQ(target.open_connections(), 1u);
  EXPECT_EQ(subsystem->reactors(), 0u);
}

TEST_F(BringUp, ReadsNamespaceListsOfMoreThanOnePage) {
  target.namespaces.clear();
  for (std::uint32_t n = 1; n <= 2500; ++n) target.add_namespace(2 * n, 1u << 20, 12);
  ASSERT_TRUE(go_live());
  ASSERT_EQ(subsystem->namespaces().size(), 2500u);
  EXPECT_EQ(subsystem->namespaces().back()->info.nsid, 5000u);
  EXPECT_NE(subsystem->device(0, 2048), nullptr);
}

TEST_F(BringUp, NamespaceListWithoutEndIsRefused) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    const auto id = nvme::IdentifyCommand::from_sqe(c.sqe);
    if (!is_admin(at, c, nvme::AdminOpcode::identify) || id.cns != nvme::Cns::active_namespaces) {
      return false;
    }
    std::vector<std::uint32_t> nsids(1024);
    for (std::uint32_t i = 0; i < 1024; ++i) nsids[i] = i + 1;  // the same page again and again
    std::vector<std::byte> page(nvme::kIdentifyBytes);
    nvme::encode_namespace_list(nsids, std::span(page).first<nvme::kIdentifyBytes>());
    at.send(c, page);
    return true;
  };
  EXPECT_THAT(failure(), HasSubstr("lists namespace 1 among those above 1024"));
}

TEST_F(BringUp, NamespacesThatCannotBeServedAreLeftOutWithAReason) {
  target.add_namespace(2, 100).id.lbaf[0].ms = 8;
  target.add_namespace(3, 100).id.lbaf[0].lbads = 17;
  target.add_namespace(4, 100).descriptors.csi = nvme::Csi::zoned;
  ASSERT_TRUE(go_live());
  EXPECT_EQ(subsystem->namespaces().size(), 1u);
  EXPECT_THAT(
      subsystem->refused_namespaces(),
      testing::UnorderedElementsAre(HasSubstr("8 bytes of metadata"), HasSubstr("blocks of 2^17"),
                                    HasSubstr("command set 2")));
}

TEST_F(BringUp, OneNamespaceByNumberOrUuid) {
  target.add_namespace(2, 100);
  params.namespace_selector.emplace<1>(2u);
  ASSERT_TRUE(go_live());
  ASSERT_EQ(subsystem->namespaces().size(), 1u);
  EXPECT_EQ(subsystem->namespaces()[0]->info.nsid, 2u);
}

TEST_F(BringUp, MissingNamespaceIsAnError) {
  params.namespace_selector.emplace<1>(9u);
  EXPECT_THAT(failure(), HasSubstr("the controller has no namespace 9"));
}

TEST_F(BringUp, ReadOnlyBySelfOrByNamespace) {
  target.add_namespace(2, 100).id.nsattr = nvme::kNsattrWriteProtected;
  ASSERT_TRUE(go_live());
  EXPECT_FALSE(subsystem->device(0, 1)->info().read_only);
  EXPECT_TRUE(subsystem->device(0, 2)->info().read_only);
}

// ---- what fails ----

TEST_F(BringUp, NobodyListens) {
  params.port = 4421;
  EXPECT_THAT(failure(), AllOf(HasSubstr("cannot connect to nqn.2024-01.org.example:fake at "
                                         "10.0.0.1:4421")));
}

TEST_F(BringUp, AddressThatNeverAnswers) {
  loop.on_connect = [](const transport::Endpoint&) {
    return sim::ConnectFate{.kind = sim::ConnectFate::Kind::ignore};
  };
  failure();
  EXPECT_LE(took, seconds(11));
}

TEST_F(BringUp, SecondAddressOfANameIsTried) {
  params.traddr = "target.example";
  loop.hosts["target.example"] = {"10.0.0.99", "10.0.0.1"};
  ASSERT_TRUE(go_live());
  EXPECT_EQ(subsystem->info()->endpoint.host, "10.0.0.1");
}

TEST_F(BringUp, UnknownName) {
  params.traddr = "nowhere.example";
  EXPECT_THAT(failure(), HasSubstr("nowhere.example"));
}

TEST_F(BringUp, EveryAnswerMayStayAwayAndItStillEnds) {
  // How many answers a whole bring-up takes.
  ASSERT_TRUE(go_live());
  const std::size_t commands = target.seen.size() - target.count(0, 0x0c);
  subsystem->stop();
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(10)));
  EXPECT_EQ(target.open_connections(), 0u);
  for (std::size_t last = 0; last < commands; ++last) {
    SCOPED_TRACE(last);
    std::size_t answered = 0;
    target.intercept = [&](FakeTarget::Connection&, ControllerCommand&) {
      return answered++ >= last;
    };
    subsystem.reset();
    outcome = {};
    EXPECT_THAT(failure(seconds(31)), AnyOf(HasSubstr("did not answer"), HasSubstr("longer than")));
    EXPECT_LE(took, seconds(11));
    EXPECT_EQ(target.open_connections(), 0u);
  }
}

TEST_F(BringUp, CutAtEveryCommandLeavesNothingOpen) {
  ASSERT_TRUE(go_live());
  const std::size_t commands = target.seen.size() - target.count(0, 0x0c);
  subsystem->stop();
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(10)));
  for (std::size_t last = 0; last < commands; ++last) {
    SCOPED_TRACE(last);
    std::size_t answered = 0;
    target.intercept = [&](FakeTarget::Connection& at, ControllerCommand&) {
      if (answered++ < last) return false;
      at.qpair.end(Error{"cut", 0});
      return true;
    };
    subsystem.reset();
    outcome = {};
    EXPECT_THAT(failure(), HasSubstr("cannot connect to"));
    EXPECT_LE(took, seconds(1));
  }
}

TEST_F(BringUp, StopAtEveryCommandIsPrompt) {
  for (std::size_t last = 0; last < 20; ++last) {
    SCOPED_TRACE(last);
    std::size_t answered = 0;
    target.intercept = [&](FakeTarget::Connection&, ControllerCommand&) {
      return answered++ >= last;
    };
    subsystem.reset();
    outcome = {};
    start();
    loop.run_for(seconds(2));
    subsystem->stop();
    EXPECT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(3)));
    EXPECT_EQ(outcome.ended->code, 0);
  }
}

TEST_F(BringUp, RefusedHostIsNamed) {
  refuse_connect(0, StatusCode::connect_invalid_host);
  EXPECT_THAT(failure(), AllOf(HasSubstr(params.hostnqn), HasSubstr("pass --hostnqn"),
                               HasSubstr("10.0.0.1:4420")));
}

TEST_F(BringUp, InvalidParameterIsDecoded) {
  refuse_connect(0, StatusCode::connect_invalid_parameters,
                 nvme::ConnectInvalidParameter{true, nvme::kConnectDataSubnqn}.encode());
  EXPECT_THAT(failure(), AllOf(HasSubstr("SUBNQN"), HasSubstr("no such subsystem")));
}

TEST_F(BringUp, InvalidQueueSizeIsDecoded) {
  refuse_connect(2, StatusCode::connect_invalid_parameters,
                 nvme::ConnectInvalidParameter{false, nvme::kConnectSqeSqsize}.encode());
  EXPECT_THAT(failure(), AllOf(HasSubstr("queue 2"), HasSubstr("--queue-size")));
}

TEST_F(BringUp, EveryInvalidParameterEndsWithAHint) {
  refuse_connect(2, StatusCode::connect_invalid_parameters,
                 nvme::ConnectInvalidParameter{false, nvme::kConnectSqeQid}.encode());
  EXPECT_THAT(failure(), AllOf(HasSubstr("(QID), byte 42 of the Connect command"),
                               HasSubstr("; try a smaller --nr-io-queues")));
}

TEST_F(BringUp, AnyOtherRefusalIsExplained) {
  refuse_connect(0, StatusCode::connect_incompatible_format);
  EXPECT_THAT(failure(), AllOf(HasSubstr("refused to connect the admin queue: Incompatible Format"),
                               HasSubstr("; try a target of a newer")));
}

TEST_F(BringUp, AuthenticationIsNotSupportedYet) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is_connect(c, 0)) return false;
    at.qpair.open_queue(32, 8192, true);
    at.respond(c, {}, nvme::ConnectResponse{.cntlid = 7, .authentication_required = true}.encode());
    return true;
  };
  EXPECT_THAT(failure(), HasSubstr("requires authentication, which is not supported yet"));
}

TEST_F(BringUp, NeverReady) {
  target.becomes_ready = false;
  EXPECT_THAT(failure(), HasSubstr("did not become ready (CSTS.RDY) within the 5 s"));
  EXPECT_LE(took, seconds(6));
}

TEST_F(BringUp, NeverReadyWithALongTimeoutIsBoundedAsAWhole) {
  target.becomes_ready = false;
  target.cap.to = 255;
  EXPECT_THAT(failure(), HasSubstr("longer than 30 s"));
}

TEST_F(BringUp, LateReadyIsWaitedFor) {
  target.ready_delay = seconds(4);
  EXPECT_TRUE(go_live());
}

TEST_F(BringUp, FatalStatus) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    const auto p = nvme::PropertyCommand::from_sqe(c.sqe);
    if (!c.sqe.is_fabrics() || c.sqe.fabrics_type() != nvme::FabricsType::property_get || !p ||
        p->offset != static_cast<std::uint32_t>(nvme::Property::csts)) {
      return false;
    }
    nvme::ControllerStatus csts;
    csts.cfs = true;
    at.respond(c, {}, csts.encode());
    return true;
  };
  EXPECT_THAT(failure(), HasSubstr("CSTS.CFS"));
}

TEST_F(BringUp, EnabledControllerIsDisabledFirst) {
  bool first = true;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    const auto p = nvme::PropertyCommand::from_sqe(c.sqe);
    if (!c.sqe.is_fabrics() || c.sqe.fabrics_type() != nvme::FabricsType::property_get || !p ||
        p->offset != static_cast<std::uint32_t>(nvme::Property::cc) || !first) {
      return false;
    }
    first = false;
    at.respond(c, {}, 0x00460001);
    return true;
  };
  ASSERT_TRUE(go_live());
  std::vector<std::uint64_t> sets;
  for (const SeenCommand& s : target.seen) {
    if (s.sqe.is_fabrics() && s.sqe.fabrics_type() == nvme::FabricsType::property_set) {
      sets.push_back(nvme::PropertyCommand::from_sqe(s.sqe)->value);
    }
  }
  EXPECT_THAT(sets, ElementsAre(0u, 0x00460001u));
}

TEST_F(BringUp, IdentifyIsChecked) {
  const struct {
    std::function<void(nvme::IdentifyController&)> change;
    const char* sentence;
  } cases[] = {
      {[](auto& id) { id.cntlid = 8; }, "controller ID 7 but Identify with 8"},
      {[](auto& id) { id.kas = 0; }, "KAS is 0"},
      {[](auto& id) { id.ioccsz = 3; }, "IOCCSZ 3"},
      {[](auto& id) { id.iorcsz = 0; }, "IORCSZ 0"},
      {[](auto& id) { id.icdoff = 1; }, "ICDOFF 1"},
      {[](auto& id) { id.sgls = 0; }, "SGLS is 0"},
      {[](auto& id) { id.maxcmd = 0; }, "MAXCMD is 0"},
      {[](auto& id) { id.cntrltype = nvme::ControllerType::discovery; }, "discovery controller"},
  };
  const nvme::IdentifyController good = target.id;
  for (const auto& c : cases) {
    target.id = good;
    c.change(target.id);
    subsystem.reset();
    outcome = {};
    EXPECT_THAT(failure(), HasSubstr(c.sentence));
  }
}

TEST_F(BringUp, DeclinedDigestIsNoSilentDowngrade) {
  params.data_digest = true;
  target.qpair.data_digest = false;
  EXPECT_THAT(failure(), AllOf(HasSubstr("declined"), HasSubstr("data digest")));
}

TEST_F(BringUp, DigestsWork) {
  params.data_digest = params.header_digest = true;
  EXPECT_TRUE(go_live());
}

TEST_F(BringUp, ImpossibleControllerId) {
  target.cntlid = 0xffff;
  EXPECT_THAT(failure(), HasSubstr("impossible controller ID 0xffff"));
}

TEST_F(BringUp, IoQueueOfAnotherController) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is_connect(c, 1)) return false;
    at.qpair.open_queue(32, 8192, true);
    at.respond(c, {}, nvme::ConnectResponse{.cntlid = 8}.encode());
    return true;
  };
  EXPECT_THAT(failure(), HasSubstr("queue 1 was connected to controller 8 instead of 7"));
}

TEST_F(BringUp, RefusedQueues) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is_admin(at, c, nvme::AdminOpcode::set_features) ||
        nvme::FeatureCommand::from_sqe(c.sqe).feature != nvme::Feature::number_of_queues) {
      return false;
    }
    at.respond(c, {StatusCode::invalid_field, true});
    return true;
  };
  EXPECT_THAT(failure(), HasSubstr("refused to grant I/O queues"));
}

TEST_F(BringUp, BadParametersNeverReachTheNetwork) {
  params.queue_size = 4;
  EXPECT_THAT(failure(), HasSubstr("the queue size is 4 but must be from 16 to 1024"));
  EXPECT_EQ(target.accepted, 0u);
}

}  // namespace
}  // namespace nvmf::test
